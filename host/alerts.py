#!/usr/bin/python3 -IS
"""Says which alerts Alertmanager has, as one JSON list. Sent over SSH by `scripts/cluster status`.

alerts PORT

Prints [{"name", "severity", "summary", "since": ISO 8601, "silenced": bool}] of Alertmanager on this machine,
at PORT; without the watchdog's, which is there to be heard all the time. Those that another alert explains
are left out, as they are not sent either. Where Alertmanager has a password, it is the one in PASSWORD.
Exit status: 1 with a line on standard error when Alertmanager does not answer.
"""

import base64
import contextlib
import json
import sys
import urllib.request

LIMIT = 10  # s
# Of the user admin; not there where no password is set.
PASSWORD = "/etc/cosyvoice-lvs/watch/password"


def main(port):
    # No proxy of the environment is asked for what is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v2/alerts?inhibited=false")
    with contextlib.suppress(FileNotFoundError), open(PASSWORD, encoding="utf-8") as file:
        login = base64.b64encode(f"admin:{file.read()}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with opener.open(request, timeout=LIMIT) as answer:
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
