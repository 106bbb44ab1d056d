-- As for the audit. And the planner cannot know how many rows the steps have; where it guesses few, it would look through
-- all endpoints for each of a million rows.
set local jit = off;
set local work_mem = '128MB';
set local statement_timeout = '600s';
set local enable_nestloop = off
