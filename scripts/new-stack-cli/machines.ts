import type { Target } from "../../components/remote/openssh";
import type { HostsAnswers } from "./answers";

/** Something that would keep the stack from being deployed, or be regretted afterwards. */
export interface Objection {
  /** Name of the machine; `null`: the cluster's. */
  readonly machine: string | null;
  readonly what: string;
  readonly fix: string;
}

/** Machines asked at once. */
export const AT_ONCE = 16;

/** Seconds for one dial. */
export const DIAL = 10;

/** Somebody to be logged in to, whose key is not known yet. */
export type Endpoint = Omit<Target, "hostKey">;

/** Everybody that is to be logged in to. */
export function endpointsOf({
  directors,
  realServers,
  storage,
  client,
  monitor,
  user,
  sshPort,
}: HostsAnswers): Endpoint[] {
  const machines = [
    ...directors,
    ...realServers,
    ...("export" in storage ? [] : [storage]),
    ...(client ? [client] : []),
    ...(monitor ? [monitor] : []),
  ];
  return machines.map(({ name, address }) => ({ name, address, user, port: sshPort }));
}
