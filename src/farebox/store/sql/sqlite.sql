-- What SQLite reads in its own way: lists come as JSON texts. There are no locks of rows: one transaction writes at a
-- time, and it begins before it reads.

-- insert_holds (rows) --
-- As they are placed: what is not named here is null, and `asks` is 0.
INSERT INTO hold (
    id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, charge_to, charge_times, reserved_tokens, order_digest, kind, units, end_user, tags
) VALUES (
    :id, :account_id, :key_id, :worker, 'pending', :amount_nanos, :plan, :event_price_nanos, :model, :streamed,
    :created_us, :marked_up, :charge_to, :charge_times, :reserved_tokens, :order_digest, :kind, :units, :end_user, :tags
);

-- insert_hold_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, over_hold_nanos
) VALUES (:id, 'hold', :debit_account_id, 1, :amount_nanos, :created_us, :hold_id, 0);

-- insert_end_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events, event_price_nanos,
    over_hold_nanos
) VALUES (
    :id, :kind, :debit_account_id, 1, :amount_nanos, :created_us, :hold_id, :cost, :events, :event_price_nanos,
    :over_hold_nanos
);

-- end_holds (rows) --
-- As `end_hold`, many at once.
WITH ended (
    state, generation_id, served_model, prompt_tokens, answer_tokens, units, sent_us, head_us, read_us, ended_us, id
) AS (VALUES (
    :state, :generation_id, :served_model, :prompt_tokens, :answer_tokens, :units, :sent_us, :head_us, :read_us,
    :ended_us, :id
))
UPDATE hold SET state = ended.state, generation_id = ended.generation_id, served_model = ended.served_model,
    prompt_tokens = ended.prompt_tokens, answer_tokens = ended.answer_tokens, units = ended.units,
    sent_us = ended.sent_us, head_us = ended.head_us, read_us = ended.read_us, ended_us = ended.ended_us
FROM ended WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- end_named_holds (rows) --
WITH ended (
    state, served_model, prompt_tokens, answer_tokens, units, sent_us, head_us, read_us, ended_us, id
) AS (VALUES (
    :state, :served_model, :prompt_tokens, :answer_tokens, :units, :sent_us, :head_us, :read_us,
    :ended_us, :id
))
UPDATE hold SET state = ended.state, served_model = ended.served_model, prompt_tokens = ended.prompt_tokens,
    answer_tokens = ended.answer_tokens, units = ended.units, sent_us = ended.sent_us, head_us = ended.head_us,
    read_us = ended.read_us, ended_us = ended.ended_us
FROM ended WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- name_generations (rows) --
WITH named (generation_id, id) AS (VALUES (:generation_id, :id))
UPDATE hold SET generation_id = named.generation_id FROM named WHERE hold.id = named.id;

-- transfers_of --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id IN (SELECT value FROM json_each(:ids));

-- holds_of --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id IN (SELECT value FROM json_each(:ids));

-- holds_fitting --
-- Of these, which a list wants, as far as that is asked for here.
SELECT id FROM hold
WHERE id IN (SELECT value FROM json_each(:ids))
AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND (CAST(:model AS TEXT) IS NULL OR model = :model OR served_model = :model);

-- names_of_keys --
SELECT k.id, CASE WHEN k.label <> '' THEN k.label ELSE k.hint END, a.id, a.name
FROM api_key k JOIN account a ON a.id = k.account_id
WHERE k.id IN (SELECT value FROM json_each(:ids));

-- lock_holds --
SELECT id, state, delivery FROM hold WHERE id IN (SELECT value FROM json_each(:ids));

-- lock_balances --
SELECT account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos
FROM balance WHERE account_id IN (SELECT value FROM json_each(:ids));

-- lock_allowances --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner IN (SELECT value FROM json_each(:ids));

-- lock_day_totals --
-- Whoever writes is alone already.
SELECT 1;

-- holds_in --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE state IN (SELECT value FROM json_each(:states)) ORDER BY id;

-- holds_not_ended --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE ended_us IS NULL AND state IN (SELECT value FROM json_each(:states)) ORDER BY id;

-- open_orphans --
UPDATE hold SET state = 'open', reason = 'the process that served it has gone', delivery = 'lost',
    ask_us = CASE WHEN generation_id IS NOT NULL THEN 0 END
WHERE ended_us IS NULL AND state = 'pending' AND worker IN (SELECT value FROM json_each(:workers))
RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried;

-- claim_questions --
UPDATE hold SET ask_us = :until WHERE id IN (
    SELECT id FROM hold WHERE (ask_us <= :now OR ask_us > :latest) AND state = 'open' ORDER BY ask_us LIMIT :most
) RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried;

-- claim_deliveries --
UPDATE alert_delivery SET due_us = :until WHERE id IN (
    SELECT id FROM alert_delivery WHERE due_us IS NOT NULL AND (due_us <= :now OR due_us > :latest)
    ORDER BY due_us LIMIT :most
) RETURNING id, receiver_id, kind, body, created_us, due_us, attempts, state, said, ended_us;

-- take_up_runs --
UPDATE run SET worker = :worker WHERE finished_us IS NULL AND worker IN (SELECT value FROM json_each(:gone))
RETURNING id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code;

-- runs_forward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY started_us ASC, id ASC LIMIT :limit OFFSET :offset;

-- runs_backward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY started_us DESC, id DESC LIMIT :limit OFFSET :offset;

-- count_runs --
SELECT count(*) FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)));

-- item_outcomes --
SELECT number, json_extract(text, '$.status'), json_extract(text, '$.cost_usd'), json_extract(text, '$.fare_events'),
    json_extract(text, '$.fare_usd')
FROM (
    SELECT number, CAST(body AS TEXT) AS text FROM run_item WHERE dataset_id = :dataset AND number <= :most
) AS items;

-- attributed_totals --
-- As `totals`, of orders that say for whom they are; a tag's value where it is grouped by.
SELECT CASE WHEN CAST(:by_end_user AS BIGINT) = 1 THEN end_user ELSE '' END,
    coalesce(CASE WHEN tags <> '' THEN json_extract(tags, '$."' || :by_tag || '"') END, ''),
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
    OR CASE WHEN tags <> '' THEN json_extract(tags, '$."' || :tag || '"') END = :tag_value)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 4 DESC, 3, 1, 2, 5, 6, 7, 8 LIMIT :most;

-- finer_attributed_totals --
SELECT end_user,
    coalesce(CASE WHEN tags <> '' THEN json_extract(tags, '$."' || :by_tag || '"') END, ''),
    account_id, day, key_id, model, served_model, kind, cost_finer
FROM attributed_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND (CAST(:end_user AS TEXT) IS NULL OR end_user = :end_user)
AND (CAST(:tag AS TEXT) IS NULL
    OR CASE WHEN tags <> '' THEN json_extract(tags, '$."' || :tag || '"') END = :tag_value)
AND cost_finer IS NOT NULL;

-- allowances_of --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner IN (SELECT value FROM json_each(:ids));
