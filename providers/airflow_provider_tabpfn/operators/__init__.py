"""Airflow operators: fit a model, predict with it."""
