"""The Prefect test of docs/emulator.md passes as it is printed, with the fixtures of the pytest plugin."""


def test_the_printed_test(run_printed_test):
    run_printed_test("Prefect")
