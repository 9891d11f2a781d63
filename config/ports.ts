/** Ports of the monitoring machine's own loopback, which nobody chooses. */

/** Where the prober listens, which asks the VIP. */
export const PROBER_PORT = 9115;

/** Where the relay listens, which takes alerts to robots and to webhooks whose URL is a secret. */
export const RELAY_PORT = 9096;

/** Where the parts of Loki speak with each other. */
export const LOKI_INNER_PORT = 9095;
