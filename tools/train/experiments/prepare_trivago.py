#!/usr/bin/env python3
"""Adds to the trivago log how each hotel shown stands in its session's history, the strongest sign of a click there.

prepare_trivago.py DATA OUT: reads DATA/trivago/{train,valid,test}.csv.gz, writes OUT/trivago/ with two more columns:
  seen_rank    1 for the hotel of the last step, 2 for the hotel before that, and so on over distinct hotels (at most
               20); 0 for one that the session has not touched
  seen_times   in how many steps the session has touched it (at most 20)
Both follow from columns of the log and are known before the click.
"""
import csv
import gzip
import os
import sys

CAP = 20


def touches(items):
    """{hotel: [rank, times]} of a history that is ordered from the oldest step to the last one."""
    out = {}
    for item in reversed(items):
        out.setdefault(item, [min(len(out) + 1, CAP), 0])
        out[item][1] = min(out[item][1] + 1, CAP)
    return out


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = (os.path.join(directory, "trivago") for directory in sys.argv[1:])
    os.makedirs(target, exist_ok=True)
    for part in ("train", "valid", "test"):
        path = os.path.join(target, f"{part}.csv.gz")
        with gzip.open(os.path.join(source, f"{part}.csv.gz"), "rt", newline="") as rows, \
             gzip.open(path + ".tmp", "wt", compresslevel=1, newline="") as out:
            reader = csv.DictReader(rows)
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow([*reader.fieldnames, "seen_rank", "seen_times"])
            history = None
            for row in reader:
                if history != row["hist_items"]:
                    history = row["hist_items"]
                    seen = touches(history.split("^"))
                writer.writerow([*row.values(), *seen.get(row["item_id"], (0, 0))])
        os.replace(path + ".tmp", path)


if __name__ == "__main__":
    main()
