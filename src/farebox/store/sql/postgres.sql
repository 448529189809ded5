-- What PostgreSQL reads in its own way: lists come as JSON texts. Rows that a transaction changes are locked before
-- they are read, holds before balances before allowances, and each in the order of their ids: so no two nodes wait for
-- each other.

-- insert_holds (rows) --
-- As they are placed: what is not named here is null, and `asks` is 0. Bytes stand in JSON as base64.
INSERT INTO hold (
    id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, charge_to, charge_times, reserved_tokens, order_digest, kind, units, end_user, tags
) SELECT
    id, account_id, key_id, worker, 'pending', amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, charge_to, charge_times, reserved_tokens, decode(order_digest, 'base64'), kind, units, end_user, tags
FROM json_to_recordset(:rows::json) AS row (
    id text, account_id bigint, key_id bigint, worker text, amount_nanos bigint, plan text, event_price_nanos bigint,
    model text, streamed boolean, created_us bigint, marked_up boolean, charge_to text, charge_times bigint,
    reserved_tokens bigint, order_digest text, kind text, units bigint, end_user text, tags text
);

-- insert_hold_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, over_hold_nanos
) SELECT id, 'hold', debit_account_id, 1, amount_nanos, created_us, hold_id, 0
FROM json_to_recordset(:rows::json) AS row (
    id text, debit_account_id bigint, amount_nanos bigint, created_us bigint, hold_id text
);

-- insert_end_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events, event_price_nanos,
    over_hold_nanos
) SELECT
    id, kind, debit_account_id, 1, amount_nanos, created_us, hold_id, cost, events, event_price_nanos, over_hold_nanos
FROM json_to_recordset(:rows::json) AS row (
    id text, kind text, debit_account_id bigint, amount_nanos bigint, created_us bigint, hold_id text, cost text,
    events bigint, event_price_nanos bigint, over_hold_nanos bigint
);

-- end_holds (rows) --
-- As `end_hold`, many at once.
UPDATE hold SET state = ended.state, generation_id = ended.generation_id, served_model = ended.served_model,
    prompt_tokens = ended.prompt_tokens, answer_tokens = ended.answer_tokens, units = ended.units,
    sent_us = ended.sent_us, head_us = ended.head_us, read_us = ended.read_us, ended_us = ended.ended_us
FROM json_to_recordset(:rows::json) AS ended (
    state text, generation_id text, served_model text, prompt_tokens bigint, answer_tokens bigint, units bigint,
    sent_us bigint, head_us bigint, read_us bigint, ended_us bigint, id text
) WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- end_named_holds (rows) --
UPDATE hold SET state = ended.state, served_model = ended.served_model, prompt_tokens = ended.prompt_tokens,
    answer_tokens = ended.answer_tokens, units = ended.units, sent_us = ended.sent_us, head_us = ended.head_us,
    read_us = ended.read_us, ended_us = ended.ended_us
FROM json_to_recordset(:rows::json) AS ended (
    state text, served_model text, prompt_tokens bigint, answer_tokens bigint, units bigint,
    sent_us bigint, head_us bigint, read_us bigint, ended_us bigint, id text
) WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- name_generations (rows) --
UPDATE hold SET generation_id = named.generation_id
FROM json_to_recordset(:rows::json) AS named (generation_id text, id text) WHERE hold.id = named.id;

-- transfers_of --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)));

-- holds_of --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)));

-- holds_fitting --
-- Of these, which a list wants, as far as that is asked for here.
SELECT id FROM hold
WHERE id = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)))
AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND (CAST(:model AS TEXT) IS NULL OR model = :model OR served_model = :model);

-- names_of_keys --
SELECT k.id, CASE WHEN k.label <> '' THEN k.label ELSE k.hint END, a.id, a.name
FROM api_key k JOIN account a ON a.id = k.account_id
WHERE k.id = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)::bigint));

-- lock_holds --
SELECT id, state, delivery FROM hold WHERE id = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)))
ORDER BY id FOR UPDATE;

-- lock_balances --
-- Numbers are compared with numbers: what comes out of a JSON list is text.
SELECT account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos
FROM balance WHERE account_id = ANY(ARRAY(SELECT e::bigint FROM jsonb_array_elements_text(:ids::jsonb) AS e))
ORDER BY account_id FOR UPDATE;

-- lock_allowances --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)))
ORDER BY owner FOR UPDATE;

-- lock_day_totals --
-- Fares that are written wait with theirs; what was written before is there.
LOCK TABLE day_total IN SHARE ROW EXCLUSIVE MODE;

-- holds_in --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE state IN (SELECT jsonb_array_elements_text(:states::jsonb)) ORDER BY id;

-- holds_not_ended --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE ended_us IS NULL AND state IN (SELECT jsonb_array_elements_text(:states::jsonb)) ORDER BY id;

-- open_orphans --
UPDATE hold SET state = 'open', reason = 'the process that served it has gone', delivery = 'lost',
    ask_us = CASE WHEN generation_id IS NOT NULL THEN 0 END
WHERE ended_us IS NULL AND state = 'pending' AND worker IN (SELECT jsonb_array_elements_text(:workers::jsonb))
RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried;

-- claim_questions --
UPDATE hold SET ask_us = :until WHERE id IN (
    SELECT id FROM hold WHERE (ask_us <= :now OR ask_us > :latest) AND state = 'open' ORDER BY ask_us LIMIT :most
    FOR UPDATE SKIP LOCKED
) RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried;

-- claim_deliveries --
UPDATE alert_delivery SET due_us = :until WHERE id IN (
    SELECT id FROM alert_delivery WHERE due_us IS NOT NULL AND (due_us <= :now OR due_us > :latest)
    ORDER BY due_us LIMIT :most
    FOR UPDATE SKIP LOCKED
) RETURNING id, receiver_id, kind, body, created_us, due_us, attempts, state, said, ended_us;

-- take_up_runs --
UPDATE run SET worker = :worker WHERE finished_us IS NULL AND worker IN (SELECT jsonb_array_elements_text(:gone::jsonb))
RETURNING id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code;

-- runs_forward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT jsonb_array_elements_text(:statuses::jsonb)))
ORDER BY started_us ASC, id ASC LIMIT :limit OFFSET :offset;

-- runs_backward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT jsonb_array_elements_text(:statuses::jsonb)))
ORDER BY started_us DESC, id DESC LIMIT :limit OFFSET :offset;

-- count_runs --
SELECT count(*) FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT jsonb_array_elements_text(:statuses::jsonb)));

-- item_outcomes --
-- Without escapes of characters, of which PostgreSQL keeps some in no text: they stand in answers, which are not told.
SELECT number, item ->> 'status', item ->> 'cost_usd', item ->> 'fare_events', item ->> 'fare_usd'
FROM (
    SELECT number, (
        CASE WHEN strpos(text, '\u') = 0 THEN text
        ELSE regexp_replace(text, '(?<!\\)((\\\\)*)\\u[0-9A-Fa-f]{4}', '\1', 'g') END
    )::jsonb AS item
    FROM (
        SELECT number, convert_from(body, 'UTF8') AS text
        FROM run_item WHERE dataset_id = :dataset AND number <= :most
    ) AS texts
) AS items;

-- attributed_totals --
-- As `totals`, of orders that say for whom they are; a tag's value where it is grouped by.
SELECT CASE WHEN CAST(:by_end_user AS BIGINT) = 1 THEN end_user ELSE '' END,
    coalesce(CASE WHEN tags <> '' THEN tags::json ->> CAST(:by_tag AS TEXT) END, ''),
    CASE WHEN CAST(:by_account AS BIGINT) = 1 THEN account_id ELSE -1 END,
    CASE WHEN CAST(:by_day AS BIGINT) = 1 THEN day ELSE -1 END,
    CASE WHEN CAST(:by_key AS BIGINT) = 1 THEN key_id ELSE -1 END,
    CASE WHEN CAST(:by_model AS BIGINT) = 1 THEN model ELSE '' END,
    CASE WHEN CAST(:by_served_model AS BIGINT) = 1 THEN served_model ELSE '' END,
    CASE WHEN CAST(:by_kind AS BIGINT) = 1 THEN kind ELSE '' END,
    CAST(sum(orders) AS BIGINT), CAST(sum(events) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT),
    CAST(sum(cost_9) AS BIGINT), CAST(sum(cost_18) AS BIGINT), CAST(sum(cost_27) AS BIGINT), NULL,
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(answer_tokens) AS BIGINT), CAST(sum(units) AS BIGINT), max(latest_us)
FROM attributed_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND (CAST(:end_user AS TEXT) IS NULL OR end_user = :end_user)
AND (CAST(:tag AS TEXT) IS NULL
    OR CASE WHEN tags <> '' THEN tags::json ->> CAST(:tag AS TEXT) END = :tag_value)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 4 DESC, 3, 1, 2, 5, 6, 7, 8 LIMIT :most;

-- finer_attributed_totals --
SELECT end_user,
    coalesce(CASE WHEN tags <> '' THEN tags::json ->> CAST(:by_tag AS TEXT) END, ''),
    account_id, day, key_id, model, served_model, kind, cost_finer
FROM attributed_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND (CAST(:end_user AS TEXT) IS NULL OR end_user = :end_user)
AND (CAST(:tag AS TEXT) IS NULL
    OR CASE WHEN tags <> '' THEN tags::json ->> CAST(:tag AS TEXT) END = :tag_value)
AND cost_finer IS NOT NULL;

-- allowances_of --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner = ANY(ARRAY(SELECT jsonb_array_elements_text(:ids::jsonb)));
