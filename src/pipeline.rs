//! From the catalog to the store: schedule, probes, buffer, keepers.
