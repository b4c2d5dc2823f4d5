"""The connection to the TabPFN API as an Airflow hook."""
