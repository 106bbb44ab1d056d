-- Reasons for `skipped`: the agent was starved or stopped while it should have looked, or its own network was down.
alter type probe_reason add value 'starved';
alter type probe_reason add value 'paused';
alter type probe_reason add value 'network_down';
