-- rights on models, loading and unloading
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_llm_reader;
DROP ROLE IF EXISTS regress_llm_group;
RESET client_min_messages;
CREATE ROLE regress_llm_group;
CREATE ROLE regress_llm_reader IN ROLE regress_llm_group;
SELECT name AS demo FROM llm.models WHERE is_default \gset
SELECT state, is_default, has_usage, n_vocab > 0 AS has_vocab, max_model_len > 0 AS has_len, loaded_at <= now() AS loaded, error
FROM llm.models;
SELECT state, model = :'demo' AS serves, pid > 0 AS has_pid, requests, facts->>'architecture' AS architecture
FROM llm.executors;
-- nobody but a superuser may use a model that was not granted
SET ROLE regress_llm_reader;
SELECT llm_ask('Hello!', options => '{"max_tokens": 1}');
SELECT llm_tokenize('Hello!');
SELECT name = :'demo' AS seen, has_usage, path FROM llm.models;
SELECT llm_load_model('/tmp');
SELECT llm_unload_model('x');
SELECT llm_inspect_model('/tmp');
SELECT llm_grant_model('x', 'public');
INSERT INTO llm.model_grants VALUES ('x', 0::oid::regrole);
SELECT count(*) FROM llm.model_grants;
RESET ROLE;
-- to a group, whose members then have it
SELECT llm_grant_model(:'demo', 'regress_llm_group');
SET ROLE regress_llm_reader;
SELECT llm_ask('Hello!', options => '{"max_tokens": 1}') IS NOT NULL AS may;
RESET ROLE;
SELECT llm_revoke_model(:'demo', 'regress_llm_group');
SET ROLE regress_llm_reader;
SELECT llm_ask('Hello!', options => '{"max_tokens": 1}');
RESET ROLE;
-- to all
SELECT llm_grant_model(:'demo', 'public');
SELECT llm_grant_model(:'demo', 'public');
SET ROLE regress_llm_reader;
SELECT llm_ask('Hello!', options => '{"max_tokens": 1}') IS NOT NULL AS may;
RESET ROLE;
SELECT llm_revoke_model(:'demo', 'public');
SELECT llm_grant_model(:'demo', 'no such role');
-- loading from the server's files takes both EXECUTE and pg_read_server_files
GRANT EXECUTE ON FUNCTION llm_load_model(text, text, jsonb), llm_inspect_model(text) TO regress_llm_reader;
SET ROLE regress_llm_reader;
SELECT llm_load_model('/no/such/model');
SELECT llm_inspect_model('/no/such/model');
RESET ROLE;
SELECT llm_load_model(NULL);
SELECT llm_load_model('relative/path');
SELECT llm_load_model('/no/such/model', '');
SELECT llm_load_model('/no/such/model', repeat('x', 64));
SELECT llm_load_model('/no/such/model', 'x', '{"max_modl_len": 5}');
SELECT llm_unload_model('no such model');
SELECT llm_default_model('no such model');
-- a second model beside the first, and gone again
SELECT path AS demo_path FROM llm.models WHERE is_default \gset
SELECT llm_load_model(:'demo_path', 'second', '{"device": "cpu", "dtype": "float32", "max_num_seqs": 4, "max_model_len": 256}');
SELECT name = :'demo' AS is_demo, state, is_default FROM llm.models ORDER BY name = :'demo';
SELECT facts->>'precision' AS precision, facts->>'kv_cache_dtype' AS kv_cache_dtype, facts->>'max_num_seqs' AS max_num_seqs,
	   facts->>'max_model_len' AS max_model_len
FROM llm.executors WHERE model = 'second';
SELECT llm_ask('Hello!', options => '{"model": "second", "temperature": 0, "max_tokens": 4}') IS NOT NULL AS answers;
-- the same with quantized weights; the executor before may still be ending
SELECT llm_load_model(:'demo_path', 'second', '{"quantization": "int3"}');
SELECT llm_load_model(:'demo_path', 'second', '{"quantization": "int8", "device": "cpu", "max_num_seqs": 4, "max_model_len": 256}');
SELECT q.facts->>'quantization' AS quantization, (q.facts->>'weight_bytes')::int8 < 0.6 * (d.facts->>'weight_bytes')::int8 AS is_small
FROM llm.executors q, llm.executors d
WHERE q.model = 'second' AND q.facts->>'quantization' <> 'none' AND d.model = :'demo';
SELECT llm_ask('Hello!', options => '{"model": "second", "temperature": 0, "max_tokens": 4}') IS NOT NULL AS answers;
SELECT llm_default_model('second');
SELECT name, is_default FROM llm.models WHERE name = 'second';
SELECT llm_default_model(:'demo');
SELECT llm_unload_model('second');
SELECT llm_ask('Hello!', options => '{"model": "second"}');
SELECT count(*) FROM llm.models;
-- inspection
SELECT jsonb_typeof(i->'n_params') AS n_params, i->>'architecture' AS architecture, i->'unsupported' AS unsupported
FROM llm_inspect_model(:'demo_path') i;
REVOKE EXECUTE ON FUNCTION llm_load_model(text, text, jsonb), llm_inspect_model(text) FROM regress_llm_reader;
DROP ROLE regress_llm_reader, regress_llm_group;
