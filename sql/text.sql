-- tokens and templates: ids are checked as counts and round trips
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
SELECT llm_detokenize(llm_tokenize(t, '{"add_special_tokens": false}')) = t AS same
FROM (VALUES ('Hello, world!'), (''), ('  two  spaces  '), (E'line\nbreak\ttab'),
			 ('déjà vu, naïve: ünïcödé'), ('数据库 データベース'), ('👩‍👩‍👧‍👦 😀'), ('12345678901234567890')) v(t);
SELECT llm_count_tokens('Hello, world!') = cardinality(llm_tokenize('Hello, world!')) AS equal;
SELECT llm_count_tokens('Hello') - llm_count_tokens('Hello', '{"add_special_tokens": false}') AS special_tokens;
SELECT llm_tokenize(NULL) IS NULL, llm_detokenize(NULL) IS NULL, llm_count_tokens(NULL) IS NULL;
SELECT llm_detokenize('{}') = '' AS empty;
-- special tokens
SELECT llm_detokenize(llm_tokenize('Hi'), '{"skip_special_tokens": true}') = 'Hi' AS skipped,
	   llm_detokenize(llm_tokenize('Hi'), '{"skip_special_tokens": false}') = 'Hi' AS kept;
-- errors
SELECT llm_detokenize('{1000000000}');
SELECT llm_detokenize('{-1}');
SELECT llm_detokenize('{{1,2},{3,4}}');
SELECT llm_detokenize('{1,NULL}');
SELECT llm_tokenize('x', '{"add_special_token": true}');
SELECT llm_tokenize('x', '{"add_special_tokens": 1}');
SELECT llm_tokenize('x', '{"model": "nobody"}');
-- templates
SELECT llm_render('[{"role": "user", "content": "Hi"}]') LIKE '%Hi%' AS has_content;
SELECT length(llm_render('[{"role": "user", "content": "Hi"}]')) >
	   length(llm_render('[{"role": "user", "content": "Hi"}]', '{"add_generation_prompt": false}')) AS prompt_added;
SELECT llm_render('[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]',
				  '{"continue_final_message": true}') LIKE '%Hel' AS continued;
SELECT llm_render('{"messages": [{"role": "user", "content": "Hi"}]}') = llm_render('[{"role": "user", "content": "Hi"}]') AS same;
SELECT llm_render(NULL) IS NULL AS null_in;
SELECT llm_render('[{"role": "user"');
SELECT llm_render('{"prompt": "x"}');
-- no function is cheaper than it says, and none is declared immutable
SELECT proname, provolatile, proparallel, procost FROM pg_proc
WHERE proname LIKE 'llm\_%' ORDER BY proname COLLATE "C", proparallel, oid;
-- every function, table and view has a comment
SELECT p.oid::regprocedure FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'llm_ext')
  AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'llm_ext')
  AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT llm_render('{"messages": [{"role": "user", "content": "Hi"}]}', '{"add_generation_prompt": false}');
SELECT llm_tokenize('x', '[]');
