"""The local TabPFN service: the same HTTP contract as the hosted API, for tests, demos and work without an account.

Start it with `tabpfn-providers emulator`, with `python -m tabpfn_emulator`, or from a test with
`tabpfn_emulator.testing.running_emulator`. It needs the extra `emulator`; this package itself imports nothing heavy.
"""
