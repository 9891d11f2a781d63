/** IAM policy documents: who may do what, as pure functions of ids. */

/** A policy document as AWS reads it. */
export interface PolicyDocument {
  readonly Version: "2012-10-17";
  readonly Statement: readonly Statement[];
}

export interface Statement {
  readonly Sid: string;
  readonly Effect: "Allow" | "Deny";
  readonly Principal?: unknown;
  readonly Action: string | readonly string[];
  readonly Resource?: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

const document = (...Statement: Statement[]): PolicyDocument => ({ Version: "2012-10-17", Statement });

/** Lets a service of AWS, such as ec2.amazonaws.com, take a role. */
export function assumedBy(service: string): PolicyDocument {
  return document({
    Sid: "AssumedByService",
    Effect: "Allow",
    Principal: { Service: service },
    Action: "sts:AssumeRole",
  });
}

/** Where things are: the beginning of every ARN. */
export interface Account {
  /** `aws`, or `aws-cn`, `aws-us-gov`. */
  readonly partition: string;
  readonly region: string;
  readonly account: string;
}

const arn = ({ partition, region, account }: Account, service: string, resource: string) =>
  `arn:${partition}:${service}:${region}:${account}:${resource}`;

// Describe actions know no resources: AWS accepts nothing but "*" for them.
const look = (...Action: string[]): Statement => ({ Sid: "Look", Effect: "Allow", Action, Resource: "*" });

/**
 * What a director may do with exposure vpc: lead the VIP to itself in these route tables. AWS cannot limit it to one route of a
 * table.
 */
export function routeMoverPolicy(account: Account, routeTables: readonly string[]): PolicyDocument {
  return document(look("ec2:DescribeRouteTables", "ec2:DescribeNetworkInterfaces"), {
    Sid: "MoveTheRoute",
    Effect: "Allow",
    Action: "ec2:ReplaceRoute",
    Resource: routeTables.map((id) => arn(account, "ec2", `route-table/${id}`)),
  });
}

/** What a director may do with exposure internet: take the VIP and its Elastic IP to one of the directors' interfaces. */
export function addressMoverPolicy(
  account: Account,
  interfaces: readonly string[],
  allocation: string,
): PolicyDocument {
  const interfaceArns = interfaces.map((id) => arn(account, "ec2", `network-interface/${id}`));
  return document(
    look("ec2:DescribeAddresses", "ec2:DescribeNetworkInterfaces"),
    {
      Sid: "MoveTheAddress",
      Effect: "Allow",
      Action: "ec2:AssignPrivateIpAddresses",
      Resource: interfaceArns,
    },
    {
      Sid: "MoveTheElasticIp",
      Effect: "Allow",
      Action: "ec2:AssociateAddress",
      Resource: [arn(account, "ec2", `elastic-ip/${allocation}`), ...interfaceArns],
    },
  );
}

/** What a director may do for alarms: send numbers under one name. AWS cannot limit it otherwise. */
export function metricPolicy(namespace: string): PolicyDocument {
  return document({
    Sid: "SendNumbers",
    Effect: "Allow",
    Action: "cloudwatch:PutMetricData",
    Resource: "*",
    Condition: { StringEquals: { "cloudwatch:namespace": namespace } },
  });
}

/** What a real server may do: mount the share, through its access point, and write. */
export function mountPolicy(fileSystemArn: string, accessPointArn: string): PolicyDocument {
  return document({
    Sid: "MountTheShare",
    Effect: "Allow",
    Action: ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
    Resource: fileSystemArn,
    Condition: { StringEquals: { "elasticfilesystem:AccessPointArn": accessPointArn } },
  });
}

/** What the share itself lets in: the real servers' role through the access point, and nothing that is not TLS. */
export function sharePolicy(
  fileSystemArn: string,
  accessPointArn: string,
  realServerRoleArn: string,
): PolicyDocument {
  return document(
    {
      Sid: "RealServersThroughTheAccessPoint",
      Effect: "Allow",
      Principal: { AWS: realServerRoleArn },
      Action: ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
      Resource: fileSystemArn,
      Condition: { StringEquals: { "elasticfilesystem:AccessPointArn": accessPointArn } },
    },
    {
      Sid: "NothingInClear",
      Effect: "Deny",
      Principal: { AWS: "*" },
      Action: "*",
      Resource: fileSystemArn,
      Condition: { Bool: { "aws:SecureTransport": "false" } },
    },
  );
}

/** What the VPC's flow log may do: write to its log group. */
export function flowLogPolicy(logGroupArn: string): PolicyDocument {
  return document({
    Sid: "WriteTheLog",
    Effect: "Allow",
    Action: ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
    Resource: `${logGroupArn}:*`,
  });
}
