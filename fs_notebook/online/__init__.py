"""The online store: the state and position of each shard, moved together or not at all."""
