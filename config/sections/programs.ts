/**
 * What watches a cluster and is in no Debian package: which version, from where, and by which checksum. The archives are the
 * vendors' own for x86-64; the checksums are those that they publish beside them.
 */
import { section, text } from "../leaves";

interface Pin {
  readonly what: string;
  readonly url: string;
  readonly sha256: string;
}

const pins = {
  collector: {
    what: "The OpenTelemetry collector 0.160.0 (contrib), on every machine",
    url: "https://github.com/open-telemetry/opentelemetry-collector-releases/releases/download/v0.160.0/otelcol-contrib_0.160.0_linux_amd64.tar.gz",
    sha256: "7bb60c584c241c86261c2b8697cd3725dd8c56691f5ad5d98454eaa005b47b0c",
  },
  loki: {
    what: "Loki 3.7.8, on the monitoring machine",
    url: "https://github.com/grafana/loki/releases/download/v3.7.8/loki-linux-amd64.zip",
    sha256: "62aea42c9cba52cd1642b3666ab37019a0ce4c24ab50b07e85dccc8d812f7d61",
  },
  grafana: {
    what: "Grafana 12.4.2, on the monitoring machine",
    url: "https://dl.grafana.com/oss/release/grafana-12.4.2.linux-amd64.tar.gz",
    sha256: "f240b200a803bf64592fae645331750c2681df5f07496743d714db12393a591f",
  },
} as const satisfies Record<string, Pin>;

/** A program that is fetched and not installed from a package. */
export type FetchedProgram = keyof typeof pins;

function program({ what, url, sha256 }: Pin) {
  return section(
    {
      url: text(
        (value) => /^https?:\/\/[^\s"'\\$`]{1,2000}$/.test(value),
        'an address that starts with https:// or http://, without blanks, quotes, "$" and backslashes',
        {
          text: "URL from which the machines fetch the archive (.tar.gz or .zip).",
          why: "Machines that cannot reach the internet can fetch it from a server of yours.",
        },
      ).default(url),
      sha256: text((value) => /^[0-9a-f]{64}$/.test(value), "64 hexadecimal digits, as sha256sum prints", {
        text: "SHA-256 checksum of the archive. An archive with another checksum is not unpacked.",
      }).default(sha256),
    },
    { text: `${what}.` },
  ).prefault({});
}

/** The section `monitoring.programs`. */
export const programsSchema = section(
  { collector: program(pins.collector), loki: program(pins.loki), grafana: program(pins.grafana) },
  { text: "Monitoring programs that Debian does not package. Each is fetched only where it is switched on." },
).prefault({});
