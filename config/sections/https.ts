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
      text: "Whether nginx on every real server answers HTTPS, as a virtual service of its own.",
      why: "LVS forwards packets and cannot terminate TLS. On the real servers TLS scales with the pool, and the client's address is preserved.",
    }).default(false),
    serverName: text(
      (value) => isDnsName(value) || isHostAddress(value),
      "a DNS name in lower case such as speech.example.org, or an IPv4 address",
      {
        text: "Name by which clients call the service. The certificate must be valid for it, and the redirect leads to it.",
        required: "with `enabled`",
      },
    ).optional(),
    port: port({ text: "HTTPS port, on the VIP and on every real server." }).default(443),
    certificate: choice(["config", "selfSigned"], {
      text: "Where the certificate comes from. config: the secrets `tlsCertificate` and `tlsKey`. selfSigned: created by this program (with Pulumi's provider `tls`); browsers warn about it.",
      why: "To bring in a renewed certificate, run `pulumi config set` and `pulumi up`; nothing is restarted.",
    }).default("config"),
    redirect: flag({
      text: "Whether port 80 of the VIP redirects clients to HTTPS.",
    }).default(true),
    plainPort: choice(["open", "closed"], {
      text: "Whether the VIP also serves `port` without TLS. closed: only the directors and the real servers can reach that port of a real server.",
      why: "Close it in a second deployment: first give clients time to move to the HTTPS address.",
    }).default("open"),
    requestsPerSecond: whole(0, 100_000, {
      text: "Requests per second that one client address may send to one real server, with bursts of up to ten times as many. Requests beyond that are answered with 429. 0 = no limit.",
      unit: "requests/s",
      why: "A page makes about a hundred requests at once, and a whole school may share one address.",
      derived: "200; 0 with forwarding NAT, where every client has the director's address",
    }).optional(),
    connections: whole(0, 65_535, {
      text: "Connections (with HTTP/2: concurrent requests) that one client address may have to one real server. 0 = no limit.",
      unit: "connections",
      derived: "500; 0 with forwarding NAT",
    }).optional(),
    uploadLimit: whole(1, 1024, {
      text: "Largest request body. A larger one is answered with 413 before it is read.",
      unit: "MiB",
      why: "A voice recording may be up to 10 MiB.",
    }).default(12),
    hsts: whole(0, 63_072_000, {
      text: "How long a browser that has visited the service refuses to use the name without HTTPS (HSTS). 0 = off.",
      unit: "s",
      why: "It applies to all ports of the name, and cannot be withdrawn from browsers that have received it.",
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
