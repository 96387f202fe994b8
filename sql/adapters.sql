-- adapters: registering, versions, rights, routes, selection
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
DROP ROLE IF EXISTS regress_llm_tenant;
DROP ROLE IF EXISTS regress_llm_owner;
RESET client_min_messages;
CREATE ROLE regress_llm_tenant;
CREATE ROLE regress_llm_owner;
SELECT regexp_replace(path, 'models/demo$', 'test/vectors/adapter') AS vectors FROM llm.models WHERE is_default \gset
\set one :vectors '/demo_one'
\set two :vectors '/demo_two'
\set other :vectors '/phi3_dora'
-- an answer of the base model, of each adapter, and of none by name
CREATE FUNCTION pg_temp.answer(adapter text) RETURNS text LANGUAGE sql AS
	$$ SELECT llm_ask('Hello!', adapter, '{"temperature": 0, "max_tokens": 12}') $$;
SELECT pg_temp.answer(NULL) AS base \gset
SELECT llm_register_adapter('support', :'one', '{"description": "first"}');
SELECT pg_temp.answer('support') AS first \gset
SELECT :'first' <> :'base' AS differs, pg_temp.answer('support@1') = :'first' AS same, pg_temp.answer('') = :'base' AS base;
-- a second version, not active at first
SELECT llm_register_adapter('support', :'two', '{"activate": false}');
SELECT pg_temp.answer('support@2') AS second \gset
SELECT :'second' NOT IN (:'first', :'base') AS differs, pg_temp.answer('support') = :'first' AS still_first;
SELECT name, version, is_active, rank, modules, is_dora, requests > 0 AS used, description FROM llm.adapters ORDER BY 1, 2;
-- one statement may mix all of them
SELECT a, pg_temp.answer(a) = CASE a WHEN 'support@2' THEN :'second' WHEN 'support' THEN :'first' ELSE :'base' END AS right
FROM (VALUES ('support@2'), ('support'), (NULL), ('support@2'), (NULL)) AS v(a);
-- COMMIT publishes, ROLLBACK discards
BEGIN;
SELECT llm_activate_adapter('support', 2);
SELECT pg_temp.answer('support') = :'second' AS own_change;
ROLLBACK;
SELECT pg_temp.answer('support') = :'first' AS discarded;
SELECT llm_activate_adapter('support', 2);
SELECT pg_temp.answer('support') = :'second' AS published;
SELECT llm_rollback_adapter('support');
SELECT pg_temp.answer('support') = :'first' AS rolled_back;
SELECT llm_rollback_adapter('support');
-- responses name the version
SELECT llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "adapter": "support", "max_tokens": 1}')->'adapter';
SELECT llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "adapter": "support@2", "max_tokens": 1}')->'adapter';
SELECT llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}') ? 'adapter' AS has_adapter;
-- a split of the traffic: each user always gets the same version
SELECT llm_split_adapter('support', 2, 30);
SELECT version, is_active, traffic_percent FROM llm.adapters ORDER BY 1;
CREATE FUNCTION pg_temp.version(u text) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT llm_completion(json_build_object('prompt', 'x', 'adapter', 'support', 'max_tokens', 1, 'user', u))->'adapter' $$;
SELECT v->'version' AS version, v->'other_version' AS other, count(*)
FROM (SELECT pg_temp.version('user ' || i) v FROM generate_series(1, 12) i) s GROUP BY 1, 2 ORDER BY 1;
SELECT bool_and(pg_temp.version('user ' || i) = pg_temp.version('user ' || i)) AS stable FROM generate_series(1, 5) i;
SELECT llm_split_adapter('support', 1, 10);
SELECT llm_split_adapter('support', 2, 101);
SELECT llm_split_adapter('support', 2, 0);
-- routes
SELECT llm_set_route('acme', 'support@2');
SELECT llm_set_route('nobody', 'missing');
SET llm_ext.tenant = 'acme';
SELECT pg_temp.answer(NULL) = :'second' AS routed, pg_temp.answer('') = :'base' AS base, pg_temp.answer('support') = :'first' AS named;
SET llm_ext.tenant = 'unknown';
SELECT pg_temp.answer(NULL) = :'base' AS base;
RESET llm_ext.tenant;
SELECT llm_set_route('acme', NULL);
-- rights
SELECT llm_grant_model(name, 'public') FROM llm.models WHERE is_default;
SET ROLE regress_llm_tenant;
SELECT pg_temp.answer('support');
SELECT llm_register_adapter('mine', '/tmp');
SELECT llm_activate_adapter('support', 2);
SELECT llm_drop_adapter('support');
SELECT llm_grant_adapter('support', 'regress_llm_tenant');
SELECT * FROM llm.adapter_tensors;
RESET ROLE;
SELECT llm_grant_adapter('support', 'regress_llm_tenant');
SET ROLE regress_llm_tenant;
SELECT pg_temp.answer('support') = :'first' AS granted, (SELECT origin IS NULL FROM llm.adapters LIMIT 1) AS origin_is_hidden;
RESET ROLE;
SELECT llm_revoke_adapter('support', 'regress_llm_tenant');
SET ROLE regress_llm_tenant;
SELECT pg_temp.answer('support');
RESET ROLE;
-- an owner of its own, with the contents instead of a path
GRANT EXECUTE ON FUNCTION llm_register_adapter(text, json, bytea, jsonb) TO regress_llm_owner;
GRANT EXECUTE ON FUNCTION llm_register_adapter(text, text, jsonb) TO regress_llm_owner;
SELECT pg_read_file(:'one' || '/adapter_config.json') AS config, encode(pg_read_binary_file(:'one' || '/adapter_model.safetensors'), 'base64') AS tensors \gset
SET ROLE regress_llm_owner;
SELECT llm_register_adapter('mine', :'one');
SELECT llm_register_adapter('mine', :'config', decode(:'tensors', 'base64'));
SELECT pg_temp.answer('mine') = :'first' AS same;
SELECT llm_register_adapter('support', :'config', decode(:'tensors', 'base64'));
SELECT name, version, owner, origin = :'one' AS from_path, origin = 'client' AS from_client FROM llm.adapters ORDER BY 1, 2;
SELECT llm_grant_adapter('mine', 'public');
SELECT llm_drop_adapter('mine');
RESET ROLE;
-- what is refused, and leaves nothing behind
SELECT llm_register_adapter('bad', :'other');
SELECT llm_register_adapter('bad', 'relative');
SELECT llm_register_adapter('bad', '/nonexistent');
SELECT llm_register_adapter('bad@1', :'one');
SELECT llm_register_adapter('', :'one');
SELECT llm_register_adapter(NULL, :'one');
SELECT llm_register_adapter('bad', :'one', '{"colour": 1}');
SELECT llm_register_adapter('bad', :'config', 'short'::bytea);
SELECT llm_register_adapter('bad', '{}', decode(:'tensors', 'base64'));
SET llm_ext.max_adapter_size = '1MB';
SELECT llm_register_adapter('bad', :'config', convert_to(repeat('x', 1100000), 'UTF8'));
RESET llm_ext.max_adapter_size;
SELECT llm_load_model(regexp_replace(:'one', 'test/vectors.*', 'models/demo'), 'narrow', '{"max_lora_rank": 1}') IS NOT NULL AS loaded;
SELECT llm_register_adapter('bad', :'one', '{"model": "narrow"}');
SELECT llm_register_adapter('wide', :'one', '{"model": "narrow", "activate": false}');
SELECT llm_drop_adapter('wide');
SELECT llm_unload_model('narrow');
SELECT count(*) FROM llm.adapters WHERE name = 'bad';
SELECT pg_temp.answer('missing');
SELECT pg_temp.answer('support@9');
SELECT pg_temp.answer('support@x');
SELECT llm_chat('{"messages": [{"role": "user", "content": "Hello!"}], "adapter": "support"}', 'support');
-- scores are the adapter's, too
SELECT b.label, b.probability <> a.probability AS differs
FROM llm_classify_scores('I like it', ARRAY['good', 'bad']) b
JOIN llm_classify_scores('I like it', ARRAY['good', 'bad'], 'support') a USING (label) ORDER BY 1;
SELECT pg_temp.answer(NULL) = :'base' AS base, pg_temp.answer('support') = :'first' AS first;
-- what people ask before they activate
SELECT item, result FROM llm_check_adapter('support', '{}');
SELECT item, result LIKE CASE WHEN item LIKE '%base' THEN :'base' ELSE :'first' END || '%' AS as_answered
FROM llm_check_adapter('support', '{Hello!}') WHERE item LIKE 'sample%';
-- dropping
SELECT llm_drop_adapter('support', 1);
SELECT llm_drop_adapter('support', 7);
SELECT llm_drop_adapter('support', 2);
SELECT llm_register_adapter('support', :'two');
SELECT name, version, is_active FROM llm.adapters ORDER BY 1, 2;
SELECT llm_drop_adapter('support');
SELECT count(*) FROM llm.adapter_tensors;
SELECT llm_revoke_model(name, 'public') FROM llm.models WHERE is_default;
DROP OWNED BY regress_llm_owner;
DROP ROLE regress_llm_owner;
DROP ROLE regress_llm_tenant;
