#!/usr/bin/python3 -IS
"""Says which alerts Alertmanager has, as one JSON list. Sent over SSH by `scripts/cluster status`.

alerts PORT

Prints [{"name", "severity", "summary", "since": ISO 8601, "silenced": bool}] of Alertmanager on this machine,
at PORT; without the watchdog's, which is there to be heard all the time. Those that another alert explains
are left out, as they are not sent either.
Exit status: 1 with a line on standard error when Alertmanager does not answer.
"""

import json
import sys
import urllib.request

LIMIT = 10  # s


def main(port):
    # No proxy of the environment is asked for what is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/api/v2/alerts?inhibited=false", timeout=LIMIT) as answer:
            alerts = json.load(answer)
    except (OSError, ValueError) as error:
        print(f"Alertmanager at port {port} does not answer: {error}", file=sys.stderr)
        return 1
    found = [
        {
            "name": alert["labels"].get("alertname", "?"),
            "severity": alert["labels"].get("severity", "none"),
            "summary": alert["annotations"].get("summary", ""),
            "since": alert["startsAt"],
            "silenced": bool(alert["status"]["silencedBy"]),
        }
        for alert in alerts
        if alert["labels"].get("severity") != "watchdog"
    ]
    print(json.dumps(sorted(found, key=lambda alert: (alert["severity"], alert["since"]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
