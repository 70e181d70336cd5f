"""What Feast takes for the same joins and reads; run by Feast's own interpreter, prints JSON.

It imports nothing of this project: Feast's dependencies are other versions of some of ours.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

REPEATS = 3
ENOUGH_S = 60
"""A join that took so long is not repeated."""
READS = 200
BATCH = 10

SETTINGS = """
project: bench
registry: {folder}/registry.db
provider: local
offline_store: {{type: file}}
online_store: {{type: redis, connection_string: "{redis}"}}
entity_key_serialization_version: 3
"""


def store_of(folder: Path, redis: str) -> Any:
    from feast import FeatureStore

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(SETTINGS.format(folder=folder, redis=redis))
    return FeatureStore(repo_path=str(folder))


def view_of(name: str, path: str, fields: list[str], kind: Any) -> tuple[Any, Any]:
    from feast import Entity, FeatureView, Field, FileSource, ValueType

    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    source = FileSource(path=path, timestamp_field="ts")
    schema = [Field(name=f, dtype=kind) for f in fields]
    view = FeatureView(
        name=name, entities=[user], ttl=timedelta(days=3650), schema=schema, source=source
    )
    return user, view


def historical(config: dict[str, Any], case: dict[str, Any]) -> dict[str, float]:
    """Join labels with the newest event of their user."""
    import pandas as pd
    from feast.types import Int64

    store = store_of(Path(config["folder"]) / case["name"], config["redis"])
    store.apply([*view_of("reads", case["events"], ["readtime"], Int64)])
    labels = pd.read_parquet(case["labels"]).rename(columns={"t": "event_timestamp"})
    seconds = []
    for _ in range(REPEATS):
        begun_s = time.perf_counter()
        frame = store.get_historical_features(labels, ["reads:readtime"]).to_df()
        seconds.append(time.perf_counter() - begun_s)
        if sum(seconds) > ENOUGH_S:
            break
    frame.to_parquet(case["out"])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb, "rows": len(frame)}


def online(config: dict[str, Any]) -> dict[str, float]:
    """Read ten features of so many users; seconds a read, the median."""
    import pandas as pd
    from feast.types import Float64

    names = [f"f{i}" for i in range(10)]
    count = config["entities"]
    now = datetime.now(timezone.utc)  # noqa: UP017 - Feast's interpreter may be older
    frame = pd.DataFrame(
        {"user": [f"u{n}" for n in range(count)], "ts": now}
        | {f: [float(n % 97) for n in range(count)] for f in names}
    )
    path = str(Path(config["folder"]) / "ten.parquet")
    frame.to_parquet(path)
    store = store_of(Path(config["folder"]) / "online", config["redis"])
    store.apply([*view_of("ten", path, names, Float64)])
    store.write_to_online_store("ten", frame)
    asked = [f"ten:{f}" for f in names]
    found = {}
    for size in config["read_entities"]:
        rows = [{"user": f"u{n * 7 % count}"} for n in range(size)]
        seconds = []
        for _ in range(max(READS // max(size // BATCH, 1), 5)):
            begun_s = time.perf_counter()
            values = store.get_online_features(features=asked, entity_rows=rows).to_dict()
            seconds.append(time.perf_counter() - begun_s)
        assert values["f0"][0] is not None
        found[str(size)] = statistics.median(seconds)
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    config = json.loads(sys.argv[1])
    import feast

    case = config.get("case")
    found = online(config) if case is None else historical(config, case)
    print(json.dumps({"version": feast.__version__, "found": found}))


if __name__ == "__main__":
    main()
