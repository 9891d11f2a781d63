import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { AwsConfig } from "../../../config/aws";
import type { MadeMachine } from "./machines";

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

/** CloudWatch's alarms about machines, and those who are told. */
export class Alarms extends pulumi.ComponentResource {
  constructor(
    name: string,
    args: { readonly emails: readonly string[]; readonly machines: readonly MadeMachine[] },
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("cosyvoice-lvs:aws:Alarms", name, {}, opts);
    const parent = { parent: this };
    const topic = new aws.sns.Topic(`${name}-topic`, {}, parent);
    for (const email of args.emails) {
      new aws.sns.TopicSubscription(
        `${name}-${email}`,
        { topic: topic.arn, protocol: "email", endpoint: email },
        parent,
      );
    }
    for (const { placed, instance } of args.machines) {
      new aws.cloudwatch.MetricAlarm(
        `${name}-${placed.name}-status`,
        {
          alarmDescription: `${placed.name} fails AWS's status checks: the machine or its host is ill`,
          namespace: "AWS/EC2",
          metricName: "StatusCheckFailed",
          dimensions: { InstanceId: instance.id },
          statistic: "Maximum",
          period: 60,
          evaluationPeriods: 3,
          comparisonOperator: "GreaterThanThreshold",
          threshold: 0,
          // A machine that does not report is not well.
          treatMissingData: "breaching",
          alarmActions: [topic.arn],
          okActions: [topic.arn],
        },
        parent,
      );
    }
    this.registerOutputs({});
  }
}
