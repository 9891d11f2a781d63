#!/usr/bin/env python3
"""Draws the results of scripts/bench: plots.py DIRECTORY reads its *.json and writes SVG beside them."""

import json
import os
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OURS, CLASSIC, GREY = "#0b6e4f", "#c1440e", "#8a8f98"
LEFT, RIGHT = 100, 40_000  # ms, edges of the outages' axis
LABELS = {"defaults": "our defaults", "classic": "classic article configuration"}

plt.rcParams.update({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
# The same results give the same file: no date, no random names; words stay words.
plt.rcParams.update({"svg.hashsalt": "cosyvoice-lvs", "svg.fonttype": "none"})


def rows_of(result, **values):
    return [row for row in result["rows"] if all(row.get(key) == value for key, value in values.items())]


def save(figure, result, directory, name):
    """Writes it, with what it was measured on below."""
    on = result["on"]
    where = on.get("accelerator", "not emulated")
    what = f"keepalived {on['keepalived']}" if "keepalived" in on else f"Python {on['python']}"
    text = f"{on['cores']} cores ({where}), Linux {on['kernel']}, {what}"
    if result["quick"]:
        text = "QUICK RUN, not to be quoted. " + text
    figure.text(0.01, 0.005, text, fontsize=8, color=GREY)
    figure.tight_layout(rect=(0, 0.025, 1, 1))
    figure.savefig(os.path.join(directory, f"{name}.svg"), metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def bars(axes, names, series, unit):
    """Horizontal bars of medians with the range as a whisker; series by name."""
    # As in the tables: a value that was measured.
    medians = [statistics.median_low(series[name]) for name in names]
    low = [m - min(series[name]) for m, name in zip(medians, names)]
    high = [max(series[name]) - m for m, name in zip(medians, names)]
    colours = [OURS if name.startswith("lvs") else GREY if name == "direct" else CLASSIC for name in names]
    axes.barh(names, medians, xerr=[low, high], color=colours, capsize=3)
    axes.invert_yaxis()
    for index, (name, value) in enumerate(zip(names, medians)):
        axes.text(max(series[name]), index, f"  {value:,.0f}", va="center", fontsize=10)
    axes.set_xlim(0, max(max(series[name]) for name in names) * 1.2)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)


def throughput(result, directory):
    names = list(dict.fromkeys(row["balancer"] for row in result["rows"]))
    rounds = len(rows_of(result, balancer=names[0], load="requests"))
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(13, 8))

    def series(load, value):
        return {name: [value(row) for row in rows_of(result, balancer=name, load=load)] for name in names}

    bars(a, names, series("requests", lambda row: row["per_second"]), "requests/s, connections kept alive")
    bars(b, names, series("connections", lambda row: row["per_second"]), "connections/s, one request each")
    bars(
        c,
        names,
        series("paced", lambda row: row["p99"]),
        "p99 of the time to an answer at 200 connections/s, ms",
    )
    bars(
        d,
        names,
        series("paced", lambda row: row["busy_s"]["all"] / row["attempts"] * 1e6),
        "processor time of the whole machine for a connection, µs",
    )
    figure.suptitle(
        f"Balancers in the same place, client and servers on the same cores (median and range of {rounds})"
    )
    save(figure, result, directory, "throughput")


def outages(result, directory):
    kinds = [
        ("cut", "outage_ms", "Director power-cut", 500),
        ("hole", "out_ms", "Black-holed real server", 2000),
        ("wedge", "out_ms", "Wedged app: accepts, never answers", 5000),
    ]
    figure, panels = plt.subplots(1, 3, figsize=(16, 5.5))
    for axes, (event, key, title, goal) in zip(panels, kinds):
        for cluster, colour in (("defaults", OURS), ("classic", CLASSIC)):
            found = rows_of(result, cluster=cluster, event=event)
            values = sorted(row[key] for row in found if row[key] is not None)
            if not found:
                continue
            label = f"{LABELS[cluster]}, {len(found)} runs"
            if len(values) < len(found):
                watched = min(row["watched_s"] for row in found)
                label += f", {len(found) - len(values)} without end in {watched:.0f} s"
            # Up at each run that is over, then level to the right edge; without any, a line along the bottom.
            points = [(value, (index + 1) / len(found)) for index, value in enumerate(values)]
            points = [(LEFT, 0), *points, (RIGHT, points[-1][1] if points else 0)]
            axes.step(*zip(*points), where="post", color=colour, label=label, linewidth=2)
        axes.axvline(goal, color="black", linestyle=":", label=f"goal: {goal:,} ms")
        axes.set_xscale("log")
        axes.set_xlim(LEFT, RIGHT)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("outage seen by a client, ms (logarithmic)")
        axes.set_title(title)
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend(fontsize=8.5, loc="lower right")
    panels[0].set_ylabel("share of the runs")
    figure.suptitle("How long new connections fail after a fault: share of the runs that were over by then")
    save(figure, result, directory, "outages")


def connections(result, directory):
    figure, (a, b) = plt.subplots(1, 2, figsize=(13, 5.5))
    for buckets, colour in zip(sorted({row["buckets"] for row in result["rows"]}), (CLASSIC, OURS)):
        found = rows_of(result, buckets=buckets)
        sizes = [row["entries"] for row in found]
        for key, style, word in (
            ("new_us", "-", "a new connection"),
            ("known_us", "--", "a packet of a known one"),
        ):
            medians = [row[key]["median"] for row in found]
            errors = [
                [m - row[key]["min"] for m, row in zip(medians, found)],
                [row[key]["max"] - m for m, row in zip(medians, found)],
            ]
            a.errorbar(sizes, medians, yerr=errors, color=colour, linestyle=style, marker="o", capsize=3,
                       label=f"{buckets:,} buckets: {word}")  # fmt: skip
        b.plot(
            sizes,
            [row["taken_bytes"] / 1e6 for row in found],
            color=colour,
            marker="o",
            label=f"{buckets:,} buckets",
        )
    past = [row["without_director_us"]["median"] for row in result["rows"]]
    a.axhline(statistics.median(past), color=GREY, linestyle=":", label="the same packet past the director")
    for axes in (a, b):
        axes.set_xscale("log")
        axes.set_xlabel("connections in the table")
        axes.legend(fontsize=9)
    b.set_yscale("log")
    a.set_ylim(bottom=0)
    a.set_ylabel("time from the sender's call to the end of the path, µs")
    b.set_ylabel("memory taken, MB")
    a.set_title("Time")
    b.set_title("Memory")
    most = max(row["entries"] for row in result["rows"])
    figure.suptitle(f"What up to {most:,} connections cost a director's kernel")
    save(figure, result, directory, "connections")


def fleet(result, directory):
    figure, (a, b) = plt.subplots(1, 2, figsize=(13, 4.8))
    names, values = [], []
    for row in rows_of(result, event="cpu"):
        word = "not emulated" if row["where"] == "native" else "emulated"
        name = f"{row['servers']} servers, every {row['interval_s']:g} s, {word}"
        if name not in names:
            names.append(name)
            values.append([])
        values[names.index(name)].append(row["poller_share"] * 100)
    medians = [statistics.median(v) for v in values]
    a.barh(names, medians, color=[OURS if "not" in name else GREY for name in names])
    for index, value in enumerate(medians):
        a.text(value, index, f"  {value:.1f} %", va="center")
    a.axvline(20, color="black", linestyle=":", label="goal: 20 % of a core")
    a.set_xlim(0, max([22, *medians]) * 1.25)
    a.invert_yaxis()
    a.set_xlabel("processor time of the health poller, % of a core")
    a.legend(fontsize=9)
    labels, points = [], []
    for row in rows_of(result, event="reload"):
        label = f"reload, {row['servers']} servers"
        if label not in labels:
            labels.append(label)
            points.append([])
        points[labels.index(label)].append(row["seconds"])
    for where, word in (("native", "not emulated"), ("emulated", "emulated")):
        found = rows_of(result, event="deaths", where=where)
        if found:
            labels.append(f"{found[0]['died']} of {found[0]['servers']} die, {word}")
            points.append([row["all_s"] for row in found])
    b.boxplot(points, vert=False, whis=(0, 100))
    b.set_yticks(range(1, len(labels) + 1), labels)
    b.invert_yaxis()
    b.set_xlim(left=0)
    b.set_xlabel("seconds until the pool is as it should be")
    figure.suptitle("Health of many real servers")
    save(figure, result, directory, "fleet")


def calm(result, directory):
    figure, axes = plt.subplots(figsize=(10, 4))
    minutes = [row["minute"] for row in result["rows"]]
    for key, colour, word in (("p50", OURS, "p50"), ("p99", GREY, "p99"), ("max", CLASSIC, "longest")):
        axes.plot(minutes, [row[key] for row in result["rows"]], color=colour, marker=".", label=word)
    moves = sum(row["vrrp_transitions"] for row in result["rows"])
    pool = sum(row["pool_changes"] for row in result["rows"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minute")
    axes.set_ylabel("time to an answer, ms")
    axes.legend(fontsize=9)
    axes.set_title(
        f"Both cores busy for {len(minutes)} min: {moves} VRRP transitions, {pool} changes of the pool"
    )
    save(figure, result, directory, "calm")


def app(result, directory):
    figure, (a, b) = plt.subplots(1, 2, figsize=(13, 4.8))
    latency = rows_of(result, event="latency")
    names = list(dict.fromkeys(row["what"] for row in latency))
    for offset, key, colour in ((-0.25, "p50", OURS), (0, "p95", GREY), (0.25, "p99", CLASSIC)):
        values = [
            statistics.median_low([row[key] for row in latency if row["what"] == name]) for name in names
        ]
        a.bar([index + offset for index in range(len(names))], values, 0.23, color=colour, label=key)
    a.axhline(10, color="black", linestyle=":", label="goal for p50: 10 ms")
    a.set_xticks(range(len(names)), names)
    a.set_ylabel("time to an answer, ms")
    a.legend(fontsize=9)
    a.set_title("A result that is there already, one connection")
    memory = rows_of(result, event="memory")
    requests = [row["requests"] for row in memory]
    b.plot(requests, [row["rss"] / 1e6 for row in memory], color=OURS, label="the app")
    with_children = [(row["rss"] + row["children_rss"]) / 1e6 for row in memory]
    b.plot(requests, with_children, color=GREY, linestyle="--", label="with its processes")
    b.set_ylim(0, max(with_children) * 1.25)
    b.set_xlabel("requests: seven of ten cached, one made, two refused")
    b.set_ylabel("resident memory, MB")
    b.legend(fontsize=9)
    b.set_title("Memory")
    figure.suptitle("The speech app on one core")
    save(figure, result, directory, "app")


def peers(result, directory):
    figure, axes = plt.subplots(figsize=(9, 4.8))
    rows = rows_of(result, name="one address, peers")
    lengths = sorted({row["seconds"] for row in rows})
    for key, colour, word in (
        ("p95", OURS, "three nodes behind one address"),
        ("shared_p95", GREY, "one queue for three engines"),
    ):
        values = [
            statistics.median_low([row[key] for row in rows_of(result, name="one address, peers", seconds=s)])
            for s in lengths
        ]
        axes.plot(lengths, values, color=colour, marker="o", label=word)
    axes.set_xlabel("a synthesis takes, s (mean)")
    axes.set_ylabel("waiting time, p95, s")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9)
    axes.set_title(f"{rows[0]['users']} users behind one address come within 5 s")
    save(figure, result, directory, "peers")


def main():
    directory = sys.argv[1]
    for draw in (throughput, outages, connections, fleet, calm, app, peers):
        path = os.path.join(directory, f"{draw.__name__}.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                draw(json.load(file), directory)


main()
