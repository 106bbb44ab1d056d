-- As for the audit. The planner cannot know how many rows the steps have; where it guesses few, it would look through
-- all endpoints for each of a million rows. And it is to sort and not to hash what it groups: the lists of values of
-- groups in a hash table grow without bound, sorting goes to the disk.
set local jit = off;
set local work_mem = '128MB';
set local statement_timeout = '600s';
set local enable_nestloop = off;
set local enable_hashagg = off
