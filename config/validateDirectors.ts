/** How what the directors run fits together: IPVS, its health checks, and VRRP. */
import { defaultPriorities } from "./resolve";
import type { Draft, Report } from "./validate";
import { machinesIn } from "./validateMachines";

export function checkLoadBalancer(draft: Draft, report: Report): void {
  const balancer = draft.loadBalancer;
  if (balancer === undefined) return;
  const { scheduler, persistence, forwarding, sorryServer, quorum, check } = balancer;

  if (balancer.agentWeights === true) {
    const at = ["loadBalancer", "agentWeights"];
    if (scheduler !== undefined && scheduler !== "wlc" && scheduler !== "wrr") {
      report(
        at,
        `has no use with the scheduler ${scheduler}: it would only make its table flap`,
        "use the scheduler wlc or wrr, or leave agentWeights out",
      );
    }
    if (quorum !== undefined && quorum > 1) {
      report(
        at,
        `changes the sum of the weights, by which quorum: ${quorum} judges the pool's health`,
        "leave out quorum or agentWeights",
      );
    }
    if (check?.kind !== undefined && check.kind !== "poller") {
      report(
        at,
        `needs the poller to learn the queues, but check.kind is ${check.kind}`,
        "use check.kind: poller, or leave agentWeights out",
      );
    }
  }

  // The poller, too: only with it does a real server that drains keep the sessions that it has.
  const passedOn =
    draft.service?.peers !== false &&
    draft.secrets.peerKey &&
    (check === undefined || check.kind === "poller");
  if (
    persistence === 0 &&
    scheduler !== undefined &&
    scheduler !== "mh" &&
    scheduler !== "sh" &&
    !passedOn &&
    !draft.refused.has("service.peers")
  ) {
    report(
      ["loadBalancer", "scheduler"],
      "spreads the connections of one visitor over all real servers, but a session lives on one of them: with several real servers the page fails (session not found)",
      "let the real servers pass sessions on (service.peers with check.kind: poller, and run: pulumi config set --secret peerKey), set loadBalancer.persistence to 300, or use the scheduler mh",
    );
  }

  if (sorryServer !== undefined) {
    const at = ["loadBalancer", "sorryServer"];
    const { address, port = draft.port } = sorryServer;
    if (address !== undefined && address === draft.vip) {
      report(
        [...at, "address"],
        "is the VIP: traffic would go round in a circle",
        "write the sorry server's own address",
      );
    }
    const member = machinesIn(draft).find(
      (machine) => machine.address !== undefined && machine.address === address,
    );
    if (member?.role === "realServer" && port === draft.port) {
      report(
        [...at, "address"],
        `is ${member.what}, which is in the pool already`,
        "name a server that is not in the pool, or leave sorryServer out",
      );
    } else if (member?.role === "director") {
      report(
        [...at, "address"],
        `is ${member.what}, which holds the VIP itself`,
        "name a server that is not a director",
      );
    }
    if (
      (forwarding === "DR" || forwarding === "TUN") &&
      port !== undefined &&
      port !== draft.port &&
      draft.port !== undefined
    ) {
      report(
        [...at, "port"],
        `differs from port, but ${forwarding} cannot rewrite ports`,
        "leave it out, or use forwarding NAT",
      );
    }
  }

  const weights = draft.realServers?.map((server) => server?.weight);
  if (quorum !== undefined && weights !== undefined && weights.length > 0 && !weights.includes(undefined)) {
    const sum = weights.reduce<number>((total, weight) => total + (weight ?? 0), 0);
    if (quorum > sum) {
      report(
        ["loadBalancer", "quorum"],
        `can never be reached: the weights of all real servers add up to ${sum}`,
        `write a number from 1 to ${sum}`,
      );
    }
  }
  checkTimes(balancer.check, report);
}

function checkTimes(check: NonNullable<Draft["loadBalancer"]>["check"], report: Report): void {
  const at = ["loadBalancer", "check"];
  if (check?.kind === "poller") {
    const { interval, timeout, failures } = check;
    if (interval === undefined || timeout === undefined || failures === undefined) return;
    if (timeout > interval * failures) {
      report(
        [...at, "timeout"],
        `is longer than ${failures} x ${interval} s (failures x interval), after which a real server is to count as dead`,
        `write at most ${interval * failures}, or raise interval or failures`,
      );
    }
  } else if (check?.kind === "misc") {
    if (check.timeout !== undefined && check.delayLoop !== undefined && check.timeout > check.delayLoop) {
      report(
        [...at, "timeout"],
        `is longer than delayLoop (${check.delayLoop} s)`,
        `write at most ${check.delayLoop}: a check must end before the next one starts`,
      );
    }
  } else if (check?.kind === "tcp" || check?.kind === "http") {
    if (
      check.connectTimeout !== undefined &&
      check.delayLoop !== undefined &&
      check.connectTimeout > check.delayLoop
    ) {
      report(
        [...at, "connectTimeout"],
        `is longer than delayLoop (${check.delayLoop} s)`,
        `write at most ${check.delayLoop}: a check must end before the next one starts`,
      );
    }
  }
}

export function checkVrrp(draft: Draft, report: Report): void {
  const { vrrp, directors } = draft;
  const priorities = directors
    ?.slice(0, 2)
    .map((director, index) => director && (director.priority ?? defaultPriorities[index]));
  if (priorities?.[0] !== undefined && priorities[0] === priorities[1]) {
    report(
      ["directors", 1, "priority"],
      `comes to ${priorities[1]}, the same as the other director's`,
      "give the directors different priorities, such as 100 and 90",
    );
  }

  if (vrrp === undefined) return;
  const { version, advertInterval, authentication, label } = vrrp;
  if (version === 2 && advertInterval !== undefined && !Number.isInteger(advertInterval)) {
    report(
      ["vrrp", "advertInterval"],
      "is not in whole seconds, which VRRP version 2 requires",
      "write 1, or use version 3",
    );
  }
  if (version === 3 && advertInterval !== undefined && advertInterval > 40) {
    report(
      ["vrrp", "advertInterval"],
      "is more than VRRP version 3 allows (40 s)",
      "write 40 or less: 0.1 is usual",
    );
  }
  if (version === 3 && authentication === "PASS") {
    report(
      ["vrrp", "authentication"],
      "is PASS, which VRRP version 3 does not have",
      "set authentication to none, or version to 2 (and advertInterval to 1)",
    );
  }
  if (label !== undefined) {
    directors?.forEach((director, index) => {
      const device = director?.interface ?? draft.interface ?? "eth0";
      if (`${device}:${label}`.length <= 15) return;
      report(
        ["vrrp", "label"],
        `gives "${device}:${label}" on ${director?.name ?? `director ${index + 1}`}, longer than the kernel's 15 characters`,
        `write at most ${Math.max(1, 14 - device.length)} characters`,
      );
    });
  }
}
