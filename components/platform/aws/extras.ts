import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { AwsConfig } from "../../../config/sections/aws";
import type { MadeMachine } from "./machines";
import { metricPolicy } from "./policies";

/** Seconds that a name server may keep the address: it does not move with the VIP. */
const TTL = 300;

/** The service's name, where `aws.dns` asks for one. */
export function makeName(
  name: string,
  dns: NonNullable<AwsConfig["dns"]>,
  address: pulumi.Input<string>,
  opts: pulumi.CustomResourceOptions,
): void {
  new aws.route53.Record(
    name,
    { zoneId: dns.zoneId, name: dns.name, type: "A", ttl: TTL, records: [address] },
    opts,
  );
}

/** What an alarm looks at, and when it is raised. */
type Watched = Pick<
  aws.cloudwatch.MetricAlarmArgs,
  | "alarmDescription"
  | "namespace"
  | "metricName"
  | "statistic"
  | "period"
  | "evaluationPeriods"
  | "threshold"
  | "treatMissingData"
>;

/** CloudWatch's alarms about machines, and those who are told. */
export class Alarms extends pulumi.ComponentResource {
  private readonly topic: aws.sns.Topic;

  constructor(
    name: string,
    args: {
      readonly emails: readonly string[];
      readonly machines: readonly MadeMachine[];
      /** Of the directors: what their packets were held back is told by themselves. */
      readonly role: aws.iam.Role;
    },
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("cosyvoice-lvs:aws:Alarms", name, {}, opts);
    const parent = { parent: this };
    this.topic = new aws.sns.Topic(`${name}-topic`, {}, parent);
    for (const email of args.emails) {
      new aws.sns.TopicSubscription(
        `${name}-${email}`,
        { topic: this.topic.arn, protocol: "email", endpoint: email },
        parent,
      );
    }
    new aws.iam.RolePolicy(
      `${name}-metric`,
      { role: args.role.id, policy: JSON.stringify(metricPolicy(ALLOWANCES.namespace)) },
      parent,
    );
    for (const machine of args.machines) {
      this.alarm(`${name}-${machine.placed.name}-status`, machine, {
        alarmDescription: `${machine.placed.name} fails AWS's status checks: the machine or its host is ill`,
        namespace: "AWS/EC2",
        metricName: "StatusCheckFailed",
        statistic: "Maximum",
        period: 60,
        evaluationPeriods: 3,
        threshold: 0,
        // A machine that does not report is not well.
        treatMissingData: "breaching",
      });
      // Every packet of a client passes a director, and none passes two real servers.
      if (machine.placed.role !== "director") continue;
      this.alarm(`${name}-${machine.placed.name}-allowance`, machine, {
        alarmDescription: `AWS holds back packets of ${machine.placed.name}: its instance type allows no more`,
        ...ALLOWANCES,
        statistic: "Sum",
        period: 300,
        evaluationPeriods: 1,
        // A burst now and then is held back for a moment.
        threshold: 100,
        // One that is off is said by the other alarm.
        treatMissingData: "missing",
      });
    }
    this.registerOutputs({});
  }

  private alarm(name: string, { instance }: MadeMachine, watched: Watched): void {
    new aws.cloudwatch.MetricAlarm(
      name,
      {
        ...watched,
        dimensions: { InstanceId: instance.id },
        comparisonOperator: "GreaterThanThreshold",
        alarmActions: [this.topic.arn],
        okActions: [this.topic.arn],
      },
      { parent: this },
    );
  }
}

/** Under which `host/allowances.py` sends. */
const ALLOWANCES = { namespace: "cosyvoice-lvs", metricName: "NetworkAllowanceExceeded" } as const;
