"""The local Application Auto Scaling: endpoint variants grow and shrink by what they have to do, and by the clock.

    state        what is registered: targets, policies, scheduled actions, and what was done about them
    operations   the API, and which permissions it needs
    arithmetic   how far a policy scales
    schedule     when a scheduled action is due
    scaler       looks every minute at what alarms and schedules say, and scales
    resources    the CloudFormation types
    service      all of it put together

https://docs.aws.amazon.com/autoscaling/application/userguide/
"""
