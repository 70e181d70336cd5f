"""The ledger: streams of events at positions, on SQLite or on Pulsar, behind one protocol."""
