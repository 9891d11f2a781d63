"""The speech app of a cosyvoice-lvs real server: one node's queue, engine, results, HTTP API and page."""

__version__ = "0.1.0"
