-- Two people applying at once: the second waits, and then compares with what the first has written. Readers go on.
lock table endpoints in share row exclusive mode;
