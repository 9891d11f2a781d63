// HTTPS in a stack file: the section, the certificate and who may come in. The certificates are made for the moment.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseConfig } from "../../config/load";
import { cluster, problemsOf, type RawOverrides, rawCluster } from "./config-fixture";

let folder: string;
const text = (name: string) => readFileSync(join(folder, name), "utf8");
const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });

/** A key, and a certificate for it that an issuer (or itself) signs. */
function make(
  name: string,
  { key = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], by = "", sans = "" } = {},
) {
  openssl(
    "req",
    "-newkey",
    ...key,
    "-nodes",
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.csr`,
    "-subj",
    `/CN=${name}`,
  );
  writeFileSync(
    join(folder, "extensions"),
    sans === "" ? "basicConstraints=CA:TRUE\n" : `subjectAltName=${sans}\n`,
  );
  const signer =
    by === "" ? ["-signkey", `${name}.key`] : ["-CA", `${by}.pem`, "-CAkey", `${by}.key`, "-CAcreateserial"];
  openssl(
    ...["x509", "-req", "-in", `${name}.csr`, ...signer, "-days", "2", "-extfile", "extensions"],
    ...["-out", `${name}.pem`],
  );
}

const section = { enabled: true, serverName: "speech.example.org" };

/** A cluster with HTTPS; its certificate is sound unless it is replaced. */
function raw(https: RawOverrides = {}, more: RawOverrides = {}): RawOverrides {
  return {
    ...rawCluster(),
    https: { ...section, ...https },
    tlsCertificate: text("leaf.pem") + text("ca.pem"),
    tlsKey: text("leaf.key"),
    ...more,
  };
}

const told = (given: RawOverrides) => problemsOf(given).map(({ path, message }) => `${path} ${message}`);

describe("HTTPS in the configuration", () => {
  before(function () {
    this.timeout(120_000);
    folder = mkdtempSync(join(tmpdir(), "config-https-"));
    make("ca");
    make("other-ca");
    make("leaf", { by: "ca", sans: "DNS:speech.example.org,DNS:*.speech.example.org,IP:192.168.1.100" });
    make("other", { by: "ca", sans: "DNS:other.example.org" });
    make("short", { key: ["rsa:1024"], by: "ca", sans: "DNS:speech.example.org" });
    make("ed25519", { key: ["ed25519"], by: "ca", sans: "DNS:speech.example.org" });
    make("curve", {
      key: ["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"],
      by: "ca",
      sans: "DNS:speech.example.org",
    });
    openssl("pkey", "-in", "leaf.key", "-aes256", "-passout", "pass:made-up", "-out", "locked.key");
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  it("is off, and then nothing is there", () => {
    assert.equal(cluster().https, undefined);
  });

  it("has these defaults", () => {
    assert.deepEqual(cluster(raw()).https, {
      serverName: "speech.example.org",
      port: 443,
      certificate: "config",
      redirect: true,
      plainPort: "open",
      requestsPerSecond: 200,
      connections: 500,
      uploadLimit: 12,
      hsts: 0,
    });
    assert.equal(cluster(raw({ plainPort: "closed" })).https?.hsts, 63_072_000);
    const nat = cluster(raw({}, { loadBalancer: { forwarding: "NAT" } })).https;
    assert.deepEqual([nat?.requestsPerSecond, nat?.connections], [0, 0]);
    const own = {
      ...raw({ certificate: "selfSigned", plainPort: "closed" }),
      tlsCertificate: undefined,
      tlsKey: undefined,
    };
    assert.equal(cluster(own).https?.hsts, 0);
  });

  it("takes a certificate for the name, by a wildcard, or for the VIP as an address", () => {
    for (const serverName of ["speech.example.org", "a.speech.example.org", "192.168.1.100"])
      assert.equal(cluster(raw({ serverName })).https?.serverName, serverName);
    assert.doesNotMatch(JSON.stringify(cluster(raw())), /BEGIN/);
  });

  for (const [mistake, change, expected] of [
    [
      "no secrets",
      () => ({ tlsCertificate: undefined, tlsKey: undefined }),
      [
        "tlsCertificate is not set, but https.certificate is config",
        "tlsKey is not set, but https.certificate is config",
      ],
    ],
    [
      "a key of another certificate",
      () => ({ tlsKey: text("other.key") }),
      ["tlsKey is not the key of the first certificate in tlsCertificate"],
    ],
    [
      "a name that it is not for",
      () => ({ https: { ...section, serverName: "elsewhere.example.org" } }),
      [
        "tlsCertificate is for DNS:speech.example.org, DNS:*.speech.example.org, IP Address:192.168.1.100, but https.serverName is elsewhere.example.org",
      ],
    ],
    [
      "an address that it is not for",
      () => ({ https: { ...section, serverName: "192.168.1.99" } }),
      [
        "tlsCertificate is for DNS:speech.example.org, DNS:*.speech.example.org, IP Address:192.168.1.100, but https.serverName is 192.168.1.99",
      ],
    ],
    [
      "a chain by nobody in it",
      () => ({ tlsCertificate: text("leaf.pem") + text("other-ca.pem") }),
      ["tlsCertificate is not a chain: certificate 2 did not issue the one before it"],
    ],
    [
      "a chain the wrong way round",
      () => ({ tlsCertificate: text("ca.pem") + text("leaf.pem") }),
      [
        "tlsCertificate is for no name, but https.serverName is speech.example.org",
        "tlsCertificate is not a chain: certificate 2 did not issue the one before it",
        "tlsKey is not the key of the first certificate in tlsCertificate",
      ],
    ],
    [
      "a short key",
      () => ({ tlsCertificate: text("short.pem"), tlsKey: text("short.key") }),
      ["tlsKey is an RSA key of 1024 bits, but browsers require 2048 or more"],
    ],
    [
      "a kind of key that browsers do not know",
      () => ({ tlsCertificate: text("ed25519.pem"), tlsKey: text("ed25519.key") }),
      ["tlsKey is a key of type ed25519, but browsers know only RSA and ECDSA"],
    ],
    [
      "a curve that browsers do not know",
      () => ({ tlsCertificate: text("curve.pem"), tlsKey: text("curve.key") }),
      ["tlsKey is a key on the curve secp521r1, but browsers know only prime256v1 and secp384r1"],
    ],
    [
      "a key with a passphrase",
      () => ({ tlsKey: text("locked.key") }),
      ["tlsKey has a passphrase, which nobody is there to type when nginx starts"],
    ],
    [
      "texts that are neither",
      () => ({ tlsCertificate: "x", tlsKey: "y" }),
      ["tlsCertificate is not a certificate in PEM", "tlsKey is not a private key in PEM"],
    ],
    [
      "a key in the certificate",
      () => ({ tlsCertificate: text("leaf.pem") + text("leaf.key") }),
      ["tlsCertificate contains a private key, which belongs in tlsKey"],
    ],
    [
      "half a certificate",
      () => ({ tlsCertificate: text("leaf.pem").replace(/\n[^\n]+\n[^\n]+\n/, "\n") }),
      ["tlsCertificate is not PEM from certificate 1 on"],
    ],
  ] as const) {
    it(`refuses ${mistake}`, () => {
      const given = raw({}, change());
      assert.deepEqual(told(given).sort(), [...expected].sort());
      for (const { value, fix } of problemsOf(given)) {
        assert.ok(value === "(a secret)" || value === undefined, String(value));
        assert.ok(fix.length > 10);
      }
    });
  }

  it("refuses a certificate outside its time", () => {
    const at = (days: number) => {
      const result = parseConfig(raw(), new Date(Date.now() + days * 86_400_000));
      return result.ok
        ? []
        : result.problems.map(({ message }) => message.replace(/(until|from) .*/, "$1 ..."));
    };
    assert.deepEqual(at(0), []);
    assert.deepEqual(at(3), [
      "has expired: the certificate was valid until ...",
      "has expired: certificate 2 of the chain was valid until ...",
    ]);
    assert.deepEqual(at(-1), [
      "is not valid yet: the certificate is valid from ...",
      "is not valid yet: certificate 2 of the chain is valid from ...",
    ]);
  });

  for (const [mistake, https, more, expected] of [
    ["no name", { serverName: undefined }, {}, ["https.serverName is missing"]],
    [
      "a name with a port",
      { serverName: "speech.example.org:443" },
      {},
      ["https.serverName is not a DNS name in lower case such as speech.example.org, or an IPv4 address"],
    ],
    [
      "a name that ends nginx's line",
      { serverName: "a; return 200" },
      {},
      ["https.serverName is not a DNS name in lower case such as speech.example.org, or an IPv4 address"],
    ],
    ["the service's own port", { port: 7860 }, {}, ["https.port is also the service's `port`"]],
    [
      "the port of the redirect",
      { port: 80 },
      {},
      ["https.port is the port from which clients are sent to HTTPS"],
    ],
    [
      "the port of SSH",
      { port: 2222 },
      { ssh: { port: 2222 } },
      ["https.port is the port of SSH on director-1"],
    ],
    [
      "a service at the redirect's port",
      {},
      { port: 80 },
      ["port is the port from which clients are sent to HTTPS"],
    ],
    [
      "HSTS beside an open plain port",
      { hsts: 60 },
      {},
      ["https.hsts makes browsers refuse the name without HTTPS, but https.plainPort is open"],
    ],
    [
      "limits for each client behind NAT",
      { connections: 5 },
      { loadBalancer: { forwarding: "NAT" } },
      [
        "https.connections limits each client address, but with forwarding NAT all clients have the director's",
      ],
    ],
    [
      "a sorry server for a closed port",
      { plainPort: "closed" },
      { loadBalancer: { sorryServer: { address: "192.168.1.30" } } },
      ["loadBalancer.sorryServer stands in for the pool at `port`, which https.plainPort closes"],
    ],
    [
      "keys beside an open plain port",
      {},
      { apiKeys: "a-made-up-key-for-nginx" },
      ["https.plainPort is open, which lets everybody in without a key, but apiKeys or httpUsers is set"],
    ],
    [
      "people and no key for the deployment",
      { plainPort: "closed" },
      { httpUsers: "a:$6$madeup$madeuphash" },
      ["apiKeys is not set, but httpUsers is: the verification at the end of a deployment could not log in"],
    ],
    [
      "a short key and a password in clear",
      { plainPort: "closed" },
      { apiKeys: "short", httpUsers: "a:$6$madeup$madeuphash\nb:clear" },
      [
        "apiKeys is not a list, separated by commas, of keys of 20 to 128 letters, digits or . _ -",
        "httpUsers is not NAME:HASH in line 2",
      ],
    ],
    ...["a:$2y$14$madeuphashmadeup", "a:$6$rounds=9000000$madeup$madeuphash"].map(
      (costly) =>
        [
          "a login that takes seconds of nginx's with every request",
          { plainPort: "closed" },
          { apiKeys: "a-made-up-key-for-nginx", httpUsers: `b:$2y$10$madeuphashmadeup\n${costly}` },
          [
            "httpUsers has in line 2 a hash that takes long to compute: nginx computes it for every request, and all other requests wait",
          ],
        ] as const,
    ),
    [
      "a key that ends nginx's line",
      { plainPort: "closed" },
      { apiKeys: 'a-made-up-key-for-nginx" off; x "' },
      ["apiKeys is not a list, separated by commas, of keys of 20 to 128 letters, digits or . _ -"],
    ],
    [
      "one key twice",
      { plainPort: "closed" },
      { apiKeys: "a-made-up-key-for-nginx,a-made-up-key-for-nginx" },
      ["apiKeys has the same key twice"],
    ],
    [
      "secrets that nothing uses",
      { certificate: "selfSigned" },
      {},
      [
        "tlsCertificate is set, but https.certificate is selfSigned",
        "tlsKey is set, but https.certificate is selfSigned",
      ],
    ],
    [
      "secrets, and HTTPS off",
      { enabled: false },
      {},
      [
        "tlsCertificate is set, but https.enabled is not true",
        "tlsKey is set, but https.enabled is not true",
      ],
    ],
  ] as readonly (readonly [string, RawOverrides, RawOverrides, readonly string[]])[]) {
    it(`refuses ${mistake}`, () => {
      assert.deepEqual(told(raw(https, more)).sort(), [...expected].sort());
    });
  }

  it("names all mistakes at once", () => {
    const paths = problemsOf(
      raw({ serverName: undefined, port: 80, hsts: 1 }, { tlsKey: "x", apiKeys: "y" }),
    );
    assert.deepEqual(
      [...new Set(paths.map(({ path }) => path))],
      ["https.serverName", "https.port", "https.plainPort", "https.hsts", "tlsKey", "apiKeys"].sort(
        (a, b) => paths.findIndex(({ path }) => path === a) - paths.findIndex(({ path }) => path === b),
      ),
    );
  });

  it("takes networks and ports of a firewall, and no other texts", () => {
    const { firewall } = cluster({
      firewall: { enabled: true, admins: ["10.0.0.0/8", "192.168.1.1"], openPorts: [9100] },
    });
    assert.deepEqual(firewall, { enabled: true, admins: ["10.0.0.0/8", "192.168.1.1"], openPorts: [9100] });
    for (const admins of [["10.0.0.0/33"], ["10.0.0/8"], ["10.0.0.0/8 }"], ["::/0"], ["10.0.0.0/8/8"]])
      assert.deepEqual(
        problemsOf({ ...rawCluster(), firewall: { enabled: true, admins } }).map(({ path }) => path),
        ["firewall.admins[0]"],
      );
  });
});
