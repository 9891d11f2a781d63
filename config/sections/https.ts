/** The section `https`: nginx on every real server. */
import { choice, flag, isDnsName, isHostAddress, port, section, text, whole } from "../leaves";

/** Port of a real server on which nginx tells the directors that it lives. */
export const DOOR_HEALTH_PORT = 7862;

/** Port from which clients are sent to HTTPS. */
export const REDIRECT_PORT = 80;

/** Requests a second and connections at a time that one client address has on one real server, when nothing is said. */
export const defaultLimits = { requestsPerSecond: 200, connections: 500 } as const;

/** Seconds for which a browser remembers that the service speaks HTTPS, when nothing else than HTTPS is offered. */
export const defaultHsts = 63_072_000;

export const httpsSchema = section(
  {
    enabled: flag({
      text: "Whether nginx on every real server answers HTTPS, at a virtual service of its own.",
      why: "LVS passes packets on and ends no TLS. On the real servers it scales with them, and the client's address stays what it is.",
    }).default(false),
    serverName: text(
      (value) => isDnsName(value) || isHostAddress(value),
      "a DNS name in lower case such as speech.example.org, or an IPv4 address",
      {
        text: "What clients call the service. The certificate must be for it; the redirect leads to it.",
        required: "with `enabled`",
      },
    ).optional(),
    port: port({ text: "Port of HTTPS, on the VIP and on every real server." }).default(443),
    certificate: choice(["config", "selfSigned"], {
      text: "Where the certificate comes from. config: the secrets `tlsCertificate` and `tlsKey`. selfSigned: made by this program (Pulumi's provider `tls`); browsers warn of it.",
      why: "A certificate that is renewed elsewhere comes in by `pulumi config set` and `pulumi up`, which restarts nothing.",
    }).default("config"),
    redirect: flag({
      text: "Whether port 80 of the VIP sends clients to HTTPS.",
    }).default(true),
    plainPort: choice(["open", "closed"], {
      text: "Whether the VIP serves `port` without TLS too. closed: only the directors and the real servers reach that port of a real server.",
      why: "Close it in a second deployment: with the first one clients learn the new address.",
    }).default("open"),
    requestsPerSecond: whole(0, 100_000, {
      text: "Requests a second that one client address may send to one real server; ten times as many may come at once. More are answered with 429. 0 = any number.",
      unit: "requests/s",
      why: "A page takes some hundred requests at once, and a school may stand behind one address.",
      derived: "200; 0 with forwarding NAT, where every client has the director's address",
    }).optional(),
    connections: whole(0, 65_535, {
      text: "Connections (with HTTP/2: requests under way) that one client address may hold to one real server. 0 = any number.",
      unit: "connections",
      derived: "500; 0 with forwarding NAT",
    }).optional(),
    uploadLimit: whole(1, 1024, {
      text: "Largest request. A longer one is answered with 413 before it is read.",
      unit: "MiB",
      why: "A recording may have 10 MiB.",
    }).default(12),
    hsts: whole(0, 63_072_000, {
      text: "How long a browser that has been here refuses to use the name without HTTPS (HSTS). 0 = not at all.",
      unit: "s",
      why: "It holds for all ports of the name, and cannot be taken back from browsers that have heard it.",
      derived: "two years where `plainPort` is closed and the certificate is not self-signed, else 0",
    }).optional(),
  },
  { text: "HTTPS for clients: nginx on every real server, behind the directors." },
);

/** HTTPS for clients, where it is on. */
export interface HttpsConfig {
  readonly serverName: string;
  readonly port: number;
  readonly certificate: "config" | "selfSigned";
  readonly redirect: boolean;
  readonly plainPort: "open" | "closed";
  /** 0: any number. */
  readonly requestsPerSecond: number;
  /** 0: any number. */
  readonly connections: number;
  /** MiB. */
  readonly uploadLimit: number;
  /** Seconds. 0: not said. */
  readonly hsts: number;
}
