"""Work by key shards: what is larger than memory, or than one machine.

An entity's values are a function of that entity's events. So events, and labels, are dealt out by
a stable hash of the entity's key, each shard is computed by the very same code as the whole would
be, and nothing but a shard has to fit.
"""
