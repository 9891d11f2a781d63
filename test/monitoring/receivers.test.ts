import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { SMTPServer } from "smtp-server";
import { freePortFrom } from "../../lab/ports";
import { LabTls } from "../../lab/tls";
import { renderAlertmanagerConfig } from "../../render";
import { paths } from "../../render/paths";
import { type RawReceiver, receivers } from "../golden/monitoringArbitraries";
import { monitored } from "../unit/monitoring-fixture";

/** A mail as it came: who had logged in, over what, from whom to whom, and its text. */
interface Mail {
  readonly user: unknown;
  readonly secure: boolean;
  readonly from: string;
  readonly to: readonly string[];
  readonly text: string;
}

describe("receivers, by the real Alertmanager", () => {
  const folder = mkdtempSync(join(tmpdir(), "receivers-"));
  const file = (name: string) => join(folder, name);
  const mails: Mail[] = [];
  const posts: { readonly path: string | undefined; readonly body: { readonly attachments: object[] } }[] =
    [];
  let mailServer: SMTPServer;
  let alertmanager: ChildProcess;
  let url: string;
  let odd: readonly RawReceiver[];

  const slack = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    posts.push({ path: request.url, body: JSON.parse(text) });
    response.end("ok");
  });

  const until = async (what: string, test: () => boolean | Promise<boolean>) => {
    for (const end = Date.now() + 60_000; !(await test()); await sleep(200)) {
      const said = () => readFileSync(file("alertmanager.log"), "utf8").slice(-1500);
      if (Date.now() > end) assert.fail(`not within 60 s: ${what}\n${said()}`);
    }
  };

  before(async () => {
    const tls = new LabTls(file("tls"));
    await tls.ensure();
    mailServer = new SMTPServer({
      cert: await tls.certificate(),
      key: await tls.key(),
      authMethods: ["PLAIN", "LOGIN"],
      authOptional: true,
      onAuth: ({ username, password }, _session, done) =>
        (username === "alerts" && password === "made-up-password") ||
        odd.some(({ receiver, secret }) => receiver.user === username && secret === password)
          ? done(null, { user: username })
          : done(new Error("no such user")),
      onData: (stream, session, done) => {
        const chunks: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("end", () => {
          const { mailFrom, rcptTo } = session.envelope;
          mails.push({
            user: session.user,
            secure: session.secure,
            from: mailFrom === false ? "" : mailFrom.address,
            to: rcptTo.map(({ address }) => address),
            text: Buffer.concat(chunks).toString(),
          });
          done();
        });
      },
    });
    const mailPort = await freePortFrom(22525);
    await new Promise<void>((resolve) => mailServer.listen(mailPort, "127.0.0.1", resolve));
    await new Promise<void>((resolve) => slack.listen(0, "127.0.0.1", resolve));
    const slackPort = (slack.address() as AddressInfo).port;
    odd = oddReceivers(mailPort, slackPort);

    const config = monitored(
      {
        receivers: [
          {
            name: "mail",
            kind: "email",
            to: "night@example.org",
            from: "cluster@example.org",
            server: `127.0.0.1:${mailPort}`,
            user: "alerts",
          },
          { name: "channel", kind: "slack" },
          ...odd.map(({ receiver }) => receiver),
        ],
        routing: {
          critical: ["mail", "channel"],
          warning: ["channel"],
          watchdog: odd.map(({ receiver: { name } }) => name),
        },
      },
      {
        receiverSecrets: {
          mail: "made-up-password",
          channel: "https://example.org/made-up",
          ...Object.fromEntries(
            odd.flatMap(({ receiver: { name }, secret }) => (secret === undefined ? [] : [[name, secret]])),
          ),
        },
      },
    );
    writeFileSync(file("mail"), "made-up-password");
    writeFileSync(file("channel"), `http://127.0.0.1:${slackPort}/made-up`);
    for (const { receiver, secret } of odd)
      if (secret !== undefined) writeFileSync(file(receiver.name), secret);
    const text = renderAlertmanagerConfig(config)
      .replaceAll(`${paths.receiverSecrets}/`, `${folder}/`)
      .replace(/group_wait: \d+s/g, "group_wait: 1s")
      .replace(/group_interval: \d+m/g, "group_interval: 1s");
    writeFileSync(file("alertmanager.yml"), text);
    const port = await freePortFrom(29193);
    url = `http://127.0.0.1:${port}`;
    alertmanager = spawn(
      "sh",
      [
        "-c",
        `exec prometheus-alertmanager --config.file=${file("alertmanager.yml")} --storage.path=${file("data")} --cluster.listen-address= --web.listen-address=127.0.0.1:${port} >${file("alertmanager.log")} 2>&1`,
      ],
      // Who vouches for the mail server is told to it as a machine's administrator would.
      { stdio: "ignore", env: { ...process.env, SSL_CERT_FILE: tls.caFile } },
    );
    process.once("exit", () => alertmanager.kill("SIGKILL"));
    await until("Alertmanager is ready", async () =>
      fetch(`${url}/-/ready`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
  });

  after(() => {
    alertmanager?.kill("SIGKILL");
    slack.close();
    mailServer?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Mails and webhooks of a kind that is let in and that nobody has, at this test's servers. */
  function oddReceivers(mailPort: number, webPort: number): RawReceiver[] {
    return fc
      .sample(receivers, 60)
      .flat()
      .filter(({ receiver: { kind, url } }) => kind === "email" || url !== undefined)
      .map(({ receiver, secret }, index) => {
        const name = `odd-${index}`;
        if (receiver.kind === "email")
          return { receiver: { ...receiver, name, server: `127.0.0.1:${mailPort}` }, secret };
        const url = String(receiver.url).replace(/^https?:\/\/[^/?#]*/, `http://127.0.0.1:${webPort}`);
        return { receiver: { ...receiver, name, url } };
      });
  }

  /** Fires an alert, as Prometheus would, or ends it. */
  async function alert(severity: string, alertname: string, ended = false): Promise<void> {
    const answer = await fetch(`${url}/api/v2/alerts`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify([
        {
          labels: { alertname, severity, node: "rs-1" },
          annotations: { summary: `rs-1 is <made up> & "quoted".`, runbook: `docs/runbooks/${alertname}.md` },
          startsAt: new Date(Date.now() - 60_000).toISOString(),
          ...(ended ? { endsAt: new Date(Date.now() - 1000).toISOString() } : {}),
        },
      ]),
    });
    assert.equal(answer.status, 200, await answer.text());
  }

  it("mail what is critical, over STARTTLS and after a login, and its end", async () => {
    await alert("critical", "NoVipHolder");
    await until("the mail came", () => mails.length > 0);
    const [mail] = mails;
    assert.deepEqual(
      { ...mail, text: undefined },
      {
        user: "alerts",
        secure: true,
        from: "cluster@example.org",
        to: ["night@example.org"],
        text: undefined,
      },
    );
    assert.match(mail?.text ?? "", /^Subject: NoVipHolder \(firing\)\r$/m);
    assert.match(
      mail?.text ?? "",
      /firing: rs-1 is <made up> & "quoted"\. \(docs\/runbooks\/NoVipHolder\.md\)/,
    );
    await alert("critical", "NoVipHolder", true);
    await until("its end came", () => mails.length > 1);
    assert.match(mails[1]?.text ?? "", /^Subject: NoVipHolder \(resolved\)\r$/m);
  });

  it("post to a channel of Slack what is only a warning, and mail nobody", async () => {
    const mailed = mails.length;
    await alert("warning", "GpuHot");
    await until("it is in the channel", () =>
      posts.some(({ body }) => JSON.stringify(body).includes("GpuHot")),
    );
    const { path, body } = posts.find((post) => JSON.stringify(post.body).includes("GpuHot")) ?? {};
    assert.equal(path, "/made-up");
    const [attachment] = (body?.attachments ?? []) as { title: string; text: string }[];
    assert.equal(attachment?.title, "GpuHot (firing)");
    assert.match(attachment?.text ?? "", /docs\/runbooks\/GpuHot\.md/);
    await sleep(3000);
    assert.equal(mails.length, mailed);
  });

  it("tell of a unit that is down beside a keepalived that is, which explains only the adverts", async () => {
    const told = (name: string) => posts.some(({ body }) => JSON.stringify(body).includes(name));
    await alert("warning", "KeepalivedDown");
    await until("keepalived is told", () => told("KeepalivedDown"));
    await alert("warning", "BackupHearsNoAdverts");
    await alert("warning", "UnitDown");
    await until("the unit is told", () => told("UnitDown"));
    // As long again as a group waits.
    await sleep(1500);
    assert.ok(!told("BackupHearsNoAdverts"));
  });

  it("reach everybody who is let in, whatever is in addresses, users, passwords and URLs", async () => {
    const [mailed, posted] = [mails.length, posts.length];
    await alert("watchdog", "Watchdog");
    const came = () =>
      new Set([
        ...mails.slice(mailed).map(({ user, from, to }) => JSON.stringify([user || null, from, ...to])),
        ...posts.slice(posted).map(({ path }) => JSON.stringify([path])),
      ]);
    const missing = () =>
      odd.filter(({ receiver: { kind, url, user, from, to } }) => {
        const path = String(url)
          .replace(/^http:\/\/[^/?#]*\/?/, "/")
          .replace(/#.*/, "");
        return !came().has(JSON.stringify(kind === "email" ? [user ?? null, from, to] : [path]));
      });
    await until("all were told", () => missing().length === 0).catch(() => {});
    assert.deepEqual(missing(), []);
  });
});
