import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LabTls } from "../../lab/tls";
import { cluster } from "./config-fixture";

describe("lab: certificates", () => {
  const folder = mkdtempSync(join(tmpdir(), "lab-tls-"));
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("are what the configuration accepts and a client that trusts the CA, also after a renewal", async () => {
    const tls = new LabTls(join(folder, "tls"));
    await tls.ensure();
    const first = await tls.certificate();
    const check = async () => {
      const { https } = cluster({
        https: { enabled: true, serverName: "192.168.1.100" },
        tlsCertificate: await tls.certificate(),
        tlsKey: await tls.key(),
      });
      assert.equal(https?.serverName, "192.168.1.100");
      const server = join(folder, "tls/server.pem");
      for (const address of ["192.168.1.100", "127.0.0.1"])
        execFileSync(
          "openssl",
          ["verify", "-CAfile", tls.caFile, "-purpose", "sslserver", "-verify_ip", address, server],
          { stdio: "pipe" },
        );
    };
    await check();
    await tls.ensure();
    assert.equal(await tls.certificate(), first, "made once");
    await tls.renew();
    assert.notEqual(await tls.certificate(), first);
    await check();
  });
});
