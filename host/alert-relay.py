#!/usr/bin/python3 -IS
"""Takes alerts from Alertmanager to what it cannot speak to, or may not know the address of.

    alert-relay PORT       listens on loopback

POST /webhook/NAME     the body goes on as it is
POST /dingtalk/NAME    a message for a group robot of DingTalk
POST /wecom/NAME       a message for a group robot of WeCom

The URL is the first word of the credential receivers_NAME (systemd's LoadCredential of a directory); with
dingtalk a second word is the secret that calls are signed with. The answer is 200 only when the other side
has taken it: a robot says so in its answer's `errcode`, and its HTTP status is 200 also when it refuses. All
else is 502, and Alertmanager tries again. The URL, which is a secret, is neither logged nor answered.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

LIMIT = 10  # s for the other side
BODY = 4 * 2**20  # bytes of one call
# Both robots refuse more: WeCom 4096 bytes of text, DingTalk 20000 bytes in all.
TEXT = {"wecom": 4000, "dingtalk": 18000}


def words_of(body):
    """The alerts of one call as Markdown, and a title."""
    firing = [alert for alert in body["alerts"] if alert["status"] == "firing"]
    over = [alert for alert in body["alerts"] if alert["status"] != "firing"]
    parts = [f"{len(firing)} firing" if firing else "", f"{len(over)} resolved" if over else ""]
    name = body.get("groupLabels", {}).get("alertname", "alerts")
    title = f"{name}: {', '.join(part for part in parts if part)}"
    lines = [f"### {title}"]
    for alert in firing + over:
        labels, notes = alert["labels"], alert.get("annotations", {})
        state = labels.get("severity", "firing") if alert["status"] == "firing" else "resolved"
        lines.append(f"- **{state}** {notes.get('summary', labels.get('alertname', '?'))}")
        if alert["status"] == "firing" and "runbook" in notes:
            lines.append(f"  {notes['runbook']}")
    return title, "\n".join(lines)


def cut(text, limit):
    """The text in so many bytes of UTF-8, no character cut through."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 4].decode("utf-8", "ignore") + "\n..."


def message(kind, body):
    title, text = words_of(body)
    text = cut(text, TEXT[kind])
    if kind == "dingtalk":
        return {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
    return {"msgtype": "markdown", "markdown": {"content": text}}


def dumped(body):
    """JSON with every letter as itself: as an escape it would take twice the room that the robots give."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def signed(url, secret, now):
    """A DingTalk URL with time and signature, as its documentation has it."""
    stamp = str(int(now * 1000))
    digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
    query = urllib.parse.urlencode({"timestamp": stamp, "sign": base64.b64encode(digest).decode()})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def login(url):
    """The URL without the user before its host, whom urllib would take for a part of it; and his header."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    said = urllib.parse.unquote_to_bytes(user if ":" in user else f"{user}:")
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {base64.b64encode(said).decode()}"}


def deliver(kind, name, content):
    """None when the other side took it, else why not, without the URL."""
    path = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), f"receivers_{name}")
    try:
        with open(path, encoding="utf-8") as file:
            url, *secret = file.read().split()
        body = content if kind == "webhook" else dumped(message(kind, json.loads(content)))
    except OSError:
        return f"there is no credential {name}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"the alerts or the credential cannot be read ({type(error).__name__})"
    if kind == "dingtalk" and secret:
        url = signed(url, secret[0], time.time())
    url, headers = login(url)
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    # No proxy of the environment, and no redirect, which would carry the secret on.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
    try:
        with opener.open(request, timeout=LIMIT) as answer:
            said = answer.read(65536)
    except urllib.error.HTTPError as error:
        return f"the receiver answers {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return f"the receiver cannot be reached ({type(reason).__name__})"
    if kind == "webhook":
        return None
    try:
        code = json.loads(said)["errcode"]
    except (ValueError, KeyError, TypeError):
        return "the receiver does not answer as a robot does"
    return None if code == 0 else f"the robot refuses the message: errcode {code}"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 30

    def do_POST(self):
        found = re.fullmatch(r"/(webhook|dingtalk|wecom)/([a-z0-9][a-z0-9-]*)", self.path)
        length = self.headers.get("Content-Length", "")
        if found is None or not length.isdigit() or int(length) > BODY:
            return self.answer(404 if found is None else 400, "see the text at the top of this program")
        kind, name = found.groups()
        fault = deliver(kind, name, self.rfile.read(int(length)))
        print(f"{name}: {'delivered' if fault is None else fault}", flush=True)
        return self.answer(*(200, "delivered") if fault is None else (502, fault))

    def answer(self, status, text):
        content = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def main(argv):
    if len(argv) != 1 or not argv[0].isdigit():
        print("alert-relay: give a port. To do: see the text at the top of this program.", file=sys.stderr)
        return 2
    http.server.ThreadingHTTPServer(("127.0.0.1", int(argv[0])), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
