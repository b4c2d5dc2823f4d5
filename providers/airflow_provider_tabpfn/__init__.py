"""TabPFN for Apache Airflow: connection, hook, operators and a trigger, thin over `tabpfn_operators`.

Airflow imports this package while it reads its own configuration, so nothing is imported here.
"""
