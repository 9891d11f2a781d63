/** Where the lab's client machine takes what Alertmanager says, and what Prometheus sees there. */
import { inside, lab, until } from "../../lab/bench";

/** The webhook: a line of JSON a call. */
export const HOOK = "http://192.168.1.50:8000/";

const receiver = (port: number) => `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/run/alerts-${port}" + self.path.replace("/", "-").rstrip("-"), "ab") as file:
            file.write(body.replace(b"\\n", b" ") + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("192.168.1.50", ${port}), Handler).serve_forever()
`;

const unit = (port: number) => `alerts-${port}`;

/** Starts to listen, with nothing told yet. */
export async function listen(port = 8000): Promise<void> {
  await hangUp(port);
  await inside(
    "client",
    `rm -f /run/alerts-${port}*; systemd-run --quiet --unit=${unit(port)} python3 -c '${receiver(port)}'`,
  );
}

/** Listens no more. */
export async function hangUp(port = 8000): Promise<void> {
  const name = unit(port);
  await inside(
    "client",
    `systemctl stop ${name} 2>/dev/null; systemctl reset-failed ${name} 2>/dev/null; true`,
  );
}

export interface Alert {
  readonly status: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** The alerts that came to the client, oldest first. @param path where they were posted to, without its "/" */
export async function told(path = ""): Promise<Alert[]> {
  const file = `/run/alerts-8000${path && "-"}${path}`;
  const lines = (await inside("client", `cat ${file} 2>/dev/null || true`)).split("\n").filter(Boolean);
  return lines.flatMap((line) => (JSON.parse(line) as { alerts: Alert[] }).alerts);
}

/** What Prometheus answers, through the port of this computer. */
export async function query(expr: string): Promise<{ labels: Record<string, string>; value: number }[]> {
  const answer = (await (
    await fetch(`${await lab.monitorUrl(9090)}api/v1/query?query=${encodeURIComponent(expr)}`)
  ).json()) as {
    data: { result: { metric: Record<string, string>; value: [number, string] }[] };
  };
  return answer.data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
}

/** An alert, as far as it must be the one that is meant: its name, and other labels where they matter. */
export interface Expected {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
}

const is =
  ({ name, labels = {} }: Expected, status: string) =>
  (alert: Alert) =>
    alert.status === status &&
    alert.labels.alertname === name &&
    Object.entries(labels).every(([key, value]) => alert.labels[key] === value);

/** Waits until an alert, or its end, has been told after the first `before` that were. */
export async function untilTold(
  expected: Expected,
  status: "firing" | "resolved",
  before: number,
  seconds: number,
): Promise<void> {
  const words = `${status === "firing" ? "" : "the end of "}${expected.name} is told`;
  await until(words, seconds, async () => (await told()).slice(before).some(is(expected, status)));
}

/**
 * Does something, waits until the alerts have come that it must cause, and undoes it.
 *
 * @param ends whether their ends are waited for too
 * @returns what was told meanwhile
 */
export async function causes(
  expected: readonly Expected[],
  fault: () => Promise<unknown>,
  mend: () => Promise<unknown>,
  { seconds = 420, ends = true } = {},
): Promise<Alert[]> {
  const before = (await told()).length;
  try {
    await fault();
    for (const alert of expected) await untilTold(alert, "firing", before, seconds);
  } finally {
    await mend();
  }
  if (ends) for (const alert of expected) await untilTold(alert, "resolved", before, seconds);
  return (await told()).slice(before);
}
