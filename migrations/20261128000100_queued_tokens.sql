-- What a key has waiting, for its quota.

-- Which key a job or batch was submitted with; null while keys are off. quota.
alter table jobs add column key_id uuid references api_keys (id);
-- Estimate of the prompt tokens of all its items, from their bytes. quota.
alter table jobs add column input_tokens bigint not null default 0 check (input_tokens >= 0);
alter table batches add column key_id uuid references api_keys (id);

-- quota: what of a key has not ended.
create index jobs_open_by_key on jobs (key_id) where key_id is not null and state in ('queued', 'running');
create index batches_open_by_key on batches (key_id) where key_id is not null and ended_at is null;
