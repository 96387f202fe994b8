-- datasets out of queries: what is recognized, learned, and refused
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
SELECT p.row_number, p.example, p.rendered, p.trained FROM llm_finetune_preview_text($$
SELECT '[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},{"role":"user","content":"Bye"},{"role":"assistant","content":"Bye bye"}]'::jsonb AS messages
$$) p;
SELECT * FROM llm_finetune_preview($$ SELECT 1 AS id, 'Hi' AS instruction, 'Yo 😀' AS output $$);
