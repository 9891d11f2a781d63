import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SMTPServer } from "smtp-server";
import { freePortFrom } from "../../lab/ports";
import { LabTls } from "../../lab/tls";
import { renderAlertmanagerConfig } from "../../render";
import { paths } from "../../render/paths";
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
      onAuth: ({ username, password }, _session, done) =>
        username === "alerts" && password === "made-up-password"
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
        ],
        routing: { critical: ["mail", "channel"], warning: ["channel"], watchdog: [] },
      },
      { receiverSecrets: { mail: "made-up-password", channel: "https://example.org/made-up" } },
    );
    writeFileSync(file("mail"), "made-up-password");
    writeFileSync(file("channel"), `http://127.0.0.1:${(slack.address() as AddressInfo).port}/made-up`);
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
});
