-- API keys: who may do what. A key's text is shown once, to whoever makes it; here is only its hash.

create table api_keys (
    -- UUID v7: ids order by creation. list, revoke, charges.
    id uuid primary key,
    -- Whose jobs, files and batches its holder sees. authentication.
    tenant text not null check (length(tenant) between 1 and 200),
    -- What a person calls it. list.
    name text not null check (length(name) between 1 and 200),
    -- Part of the key's text that is no secret. authentication finds the row by it; logs and lists show it.
    prefix text not null unique check (prefix ~ '^[0-9a-f]{12}$'),
    -- SHA-256 of the whole text. 256 random bits cannot be guessed, so that a slow hash would protect nothing.
    hash bytea not null check (length(hash) = 32),
    scopes text[] not null
        check (cardinality(scopes) > 0 and scopes <@ array['submit', 'read', 'admin']),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    -- A key is never deleted: jobs refer to it.
    revoked_at timestamptz,
    -- To the minute or so. list.
    last_used_at timestamptz,
    -- authentication: requests a minute of each process.
    rate_per_minute integer check (rate_per_minute > 0),
    -- submit, create of batches: estimated tokens of what has not ended yet.
    max_queued_tokens bigint check (max_queued_tokens > 0)
);

-- list: keys of a tenant, newest first.
create index api_keys_by_tenant on api_keys (tenant, id);
