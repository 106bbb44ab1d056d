-- Compiling this one statement takes longer than running it; and its hash tables hold a row per endpoint.
set local jit = off;
set local work_mem = '128MB';
set local statement_timeout = '600s'
