"""
Templates that exercise the language, one a line.  What jinja2 makes of them is
in language.json (make_vectors.py).  A "~" before one says that the message of
its error is ours; all other messages are the same as there.
"""
ONE_LINE = r"""
{{ 1 }}|{{ 1.0 }}|{{ -0.0 }}|{{ 1e16 }}|{{ 1e15 }}|{{ 1.5e-5 }}|{{ 0.0001 }}|{{ 123456789.123 }}|{{ 5e-324 }}|{{ 1.7976931348623157e308 }}
{{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % -2 }} {{ -7.5 % 2 }} {{ 1 / 3 }} {{ 0.1 + 0.2 }} {{ 3 * 'ab' }} {{ [1, 2] * 2 }} {{ (1,) * 3 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 'a' ~ 1 ~ 2.0 ~ none ~ true }} {{ 1 ~ 2 + 3 }}
{{ 'a' 'b' "c" }} {{ "it's" }} {{ 'say "hi"' }} {{ ['it\'s', "a\"b", 'x\\y', 'tab\t', 'nl\n', '\x00\x7f', 'é', '\u200b', '😀'] }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ [true, false, none] }}
{{ [] }} {{ () }} {{ {} }} {{ (1,) }} {{ (1, 2) }} {{ 1, 2 }} {{ [1, [2, (3,)]] }} {{ {'a': 1, 'b': [1.0, 'x'], 3: none, (1, 2): true} }}
{{ {'a': 1, 'a': 2, 'b': 3} }} {{ {1: 'a', 1.0: 'b', true: 'c'} }}
{{ range(3)[::2] }} {{ range(10)[1:8:3] }} {{ range(9)[::-2] }} {{ range(2, 20, 3)[1:99:2] }}
{{ 'cab'|sort(attribute='n') }} {{ [3, 1, 2]|sort(attribute='n') }} {{ [{}, {}]|sort|length }}
{{ objs|sort(attribute='h') }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1, 'a') < (1, 'b') }} {{ 'Z' < 'a' }} {{ 'é' > 'z' }}
{{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'a' in 'cat' }} {{ 'a' in {'a': 1} }} {{ 1 in (1, 2) }} {{ not 1 in [1] }} {{ 2 in range(5) }} {{ 7 in range(0, 10, 2) }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ not '' }} {{ not not 1 }} {{ 1 if 0 else 2 }} {{ 1 if 1 }} [{{ 1 if 0 }}] {{ 'a' if false else 'b' if false else 'c' }}
{{ undefined_var }} [{{ undefined_var|default('d') }}] {{ undefined_var is defined }} {{ undefined_var is undefined }} {{ undefined_var == none }} {{ undefined_var == other_undefined }} {{ [undefined_var] }}
{{ undefined_var.x }}
{{ undefined_var['x'] }}
{{ undefined_var() }}
{{ undefined_var + 1 }}
{{ 'a' + undefined_var }}
{{ undefined_var < 1 }}
{{ -undefined_var }}
{{ d.missing }} {{ d['missing'] }} {{ d.missing is defined }} {{ l[10] }} {{ l[10] is defined }} {{ s[99] is defined }}
{{ d.missing.x }}
{{ l.foo.bar }}
{{ s.foo.bar }}
{{ none.foo.bar }}
{{ i.foo.bar }}
{{ l[7].x }}
{{ d[none].x }}
{{ (1).foo }} {{ 1.5.foo }} {{ true.foo }}
{{ d.a }} {{ d['a'] }} {{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d|length }}
{{ k['items'] }} {{ k.get('items') }} {{ k.keys() | list }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ l[::2] }} {{ l[5:] }} {{ l[-100:100] }} {{ l[3:1] }} {{ l[3:0:-1] }} {{ l[true] }}
{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[::-1] }} {{ s[::2] }} {{ s[2:-2] }} {{ u[0] }} {{ u[1:4] }} {{ u[::-1] }} {{ u|length }} {{ u[-1] }} {{ u[::3] }}
{{ (1,2,3)[1:] }} {{ range(10)[2:5] }} {{ range(10)[::-1]|list }} {{ range(10)[3] }} {{ range(3) }} {{ range(1, 10, 3)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }}
{{ l['a':] }}
{{ l[::0] }}
{{ d[1:] }}
{{ undefined_var[1:] }}
{{ l[undefined_var:] }}
{{ l.append(1) }}
{{ l.append }}
{{ d.update({'a': 2}) }}
{{ d.pop('a') }}
{{ d.__class__ }}
{{ s.__class__.mro() }}
{{ ''.__class__.__mro__[1].__subclasses__() }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' x '.lstrip() }}|{{ ' x '.rstrip() }}|{{ '\u3000x\u00a0'.strip() }}|{{ 'abcba'.strip('ab') }}|{{ '--é--'.strip('-') }}|{{ 'x'.strip(none) }}
{{ 'a,b,c'.split(',') }} {{ 'a b  c '.split() }} {{ 'a b  c '.split(none, 1) }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ 'a b  c'.split(' ') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a,b,c'.split(sep=',', maxsplit=1) }} {{ 'aXXbXXc'.split('XX')[-1] }}
{{ 'a</think>b</think>c'.split('</think>')[-1].lstrip('\n') }} {{ 'abc'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}
{{ 'a\nb\r\nc\rd'.splitlines() }} {{ 'a\n\nb\n'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ 'a\u2028b\x0bc\x85d'.splitlines() }} {{ ''.splitlines() }}
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.startswith('') }} {{ 'abc'.startswith('abcd') }}
{{ 'hello'.replace('l', 'L') }} {{ 'hello'.replace('l', 'L', 1) }} {{ 'abc'.replace('', '-') }} {{ 'abc'.replace('', '-', 2) }} {{ 'aaa'.replace('aa', 'b') }} {{ 'é'.replace('', '.') }}
{{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'hello wORLD'.title() }} {{ 'hELLO'.capitalize() }} {{ 'aBc'.swapcase() }} {{ 'straße'.upper() }} {{ 'ΑΣ ΣΑΣ'.lower() }} {{ 'İ'.lower()|length }} {{ 'ŉa'.title() }} {{ "they're bill's".title() }} {{ 'ǆ'.title() }} {{ 'ﬁx'.capitalize() }} {{ 'Straße'.casefold() }}
{{ ','.join(['a', 'b']) }} {{ ''.join(['a', 'b']) }} {{ ', '.join('abc') }} {{ '-'.join(d) }}
{{ ','.join([1]) }}
{{ 'hello'.find('l') }} {{ 'hello'.find('z') }} {{ 'hello'.rfind('l') }} {{ 'hello'.index('l') }} {{ 'hello'.count('l') }} {{ 'aaa'.count('aa') }} {{ 'éaé'.find('a') }} {{ 'éaé'.rfind('é') }} {{ 'abc'.find('') }} {{ 'abc'.rfind('') }} {{ 'abc'.count('') }} {{ 'abcabc'.find('a', 1) }} {{ 'abcabc'.find('a', -2) }}
{{ 'hello'.index('z') }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'abc'.removeprefix('x') }}
{{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'a'.center(4) }}| {{ 'ab'.center(5, '*') }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3, '.') }} {{ 'a\tb'.expandtabs(4) }}|
{{ 'abc'.isalpha() }} {{ 'a1'.isalnum() }} {{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ ' '.isspace() }} {{ ''.isspace() }} {{ 'ABC'.isupper() }} {{ 'abc'.islower() }} {{ 'A1'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ 'abc'.isascii() }} {{ 'a_b'.isidentifier() }} {{ 'a\n'.isprintable() }}
{{ 'abc'.foo() }}
~{{ 'abc'.upper(1) }}
{{ 'abc'.split(1) }}
{{ 'abc'.split('') }}
{{ [1,2,1].count(1) }} {{ [1,2].index(2) }} {{ (1,2,1).count(1) }} {{ [1,2].copy() }} {{ {'a':1}.copy() }}
{{ [1,2].index(5) }}
{{ 'A'|lower }} {{ 'a'|upper }} {{ 'hello world-foo (bar)'|title }} {{ 'hELLO'|capitalize }} {{ '  x '|trim }}| {{ 'xxaxx'|trim('x') }} {{ 5|string }} {{ none|string }} {{ [1]|string }} {{ none|upper }} {{ 1.0|lower }}
{{ 'abc'|length }} {{ [1,2]|count }} {{ d|length }} {{ undefined_var|length }} {{ (1,2)|length }} {{ range(4)|length }}
{{ 5|length }}
{{ none|length }}
{{ [1,2,3]|first }} {{ [1,2,3]|last }} [{{ []|first }}] [{{ []|last }}] {{ 'abc'|first }} {{ 'abc'|last }} {{ d|first }} {{ d|last }} {{ undefined_var|first is defined }}
{{ ([]|first).x }}
{{ 5|first }}
{{ [3,1,2]|sort }} {{ [3,1,2]|sort(reverse=true) }} {{ ['b','A','c']|sort }} {{ ['b','A','c']|sort(case_sensitive=true) }} {{ objs|sort(attribute='n')|map(attribute='s')|list }} {{ objs|sort(attribute='g,n')|map(attribute='s')|join }} {{ objs|sort(attribute='n', reverse=true)|map(attribute='s')|join }}
{{ [1,'a']|sort }}
{{ [1,2,3]|reverse|list }} {{ 'abc'|reverse }} {{ [1,2]|reverse|join(',') }} {{ d|reverse|list }} {{ (1,2)|reverse|list }} {{ [1,2]|map('string')|reverse|list }}
{{ [1,1,2,'a','A']|unique|list }} {{ ['a','A']|unique(true)|list }} {{ objs|unique(attribute='g')|map(attribute='n')|list }}
{{ [1,2,3]|join }} {{ [1,2,3]|join(', ') }} {{ objs|join('-', attribute='n') }} {{ 'abc'|join('.') }} {{ d|join(',') }} {{ undefined_var|join(',') }}
{{ [1,none,'',2]|select|list }} {{ [1,2,3]|select('odd')|list }} {{ [1,2,3]|reject('odd')|list }} {{ [1,2,3,4]|select('divisibleby', 2)|list }} {{ [1,2,3]|select('>', 1)|list }} {{ [1,2,3]|select('in', [1,3])|list }} {{ [1,0]|reject|list }}
{{ objs|selectattr('g')|map(attribute='n')|list }} {{ objs|selectattr('g', 'equalto', 'x')|map(attribute='n')|list }} {{ objs|rejectattr('g', 'eq', 'x')|map(attribute='n')|list }} {{ objs|selectattr('zz', 'defined')|list }} {{ objs|selectattr('zz', 'undefined')|list|length }} {{ objs|map(attribute='zz', default='D')|list }} {{ objs|map(attribute='in.k')|list }}
{{ ['a','b']|map('upper')|list }} {{ [1,2]|map('string')|join }} {{ ['a-b']|map('replace','-','+')|list }} {{ [[1,2],[3]]|map('first')|list }} {{ [[1,2],[3]]|map(attribute=0)|list }} {{ ['x']|map('default','y')|list }}
{{ [1]|map('nosuch')|list }}
{{ [1]|select('nosuch')|list }}
{{ [1]|map|list }}
{{ [1]|map(attribute='a', foo=1)|list }}
{{ 1|nosuch }}
{% if false %}{{ 1|nosuch }}{% endif %}ok
{% if true %}{{ 1|nosuch }}{% endif %}ok
{{ 1 is nosuch }}
{% if 1 is nosuch %}{% endif %}
{{ 'x' if true else 1|nosuch }}
{{ nosuch(1) }}
{{ d|items|list }} {{ undefined_var|items|list }} {{ d|dictsort }} {{ {'b':1,'A':2}|dictsort }} {{ {'b':1,'A':2}|dictsort(true) }} {{ {'b':1,'A':2}|dictsort(by='value') }} {{ {'b':1,'A':2}|dictsort(reverse=true) }}
{{ 5|items|list }}
{{ {'b':1,'A':2}|dictsort(by='foo') }}
{{ '42'|int }} {{ '42.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '0x1f'|int(0, 16) }} {{ '0b11'|int(base=2) }} {{ 3.9|int }} {{ -3.9|int }} {{ true|int }} {{ none|int }} {{ ' 12 '|int }} {{ '1_000'|int }} {{ '1e3'|int }} {{ 1e20|int }} {{ '12345678901234567890123'|int }} {{ [1]|int }} {{ '-5'|int }} {{ 'ff'|int(0,16) }} {{ '--5'|int }} {{ 'nan'|int }} {{ 'inf'|int(3) }}
{{ '1.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 1|float }} {{ true|float }} {{ 'inf'|float }} {{ '-inf'|float }} {{ 'nan'|float }} {{ '1e5'|float }} {{ none|float }} {{ ' 2.5 '|float }} {{ '1_0.5'|float }} {{ '0x10'|float }}
{{ undefined_var|int }}
{{ -5|abs }} {{ 5.5|abs }} {{ (-5)|abs }} {{ -5.5|abs }} {{ true|abs }}
{{ 'a'|abs }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 42.55|round(1, 'floor') }} {{ 42.51|round(1, 'ceil') }} {{ 5|round }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 1350|round(-2) }} {{ 1234.5|round(-2) }} {{ 0.5|round|int }} {{ 1.15|round(1) }} {{ 5|round(1,'ceil') }} {{ -2.5|round }} {{ 1e300|round(2) }}
{{ 'a'|round }}
{{ 1|round(0, 'x') }}
{{ [1,2,3]|sum }} {{ [1,2.5]|sum }} {{ objs|sum(attribute='n') }} {{ []|sum }} {{ [1]|sum(start=10) }} {{ [[1],[2]]|sum(start=[]) }}
{{ ['a']|sum }}
{{ [3,1,2]|min }} {{ [3,1,2]|max }} {{ ['b','A']|min }} {{ ['b','A']|max }} {{ objs|max(attribute='n') }} [{{ []|min }}]
{{ [1,'a']|max }}
{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|batch(2, 'x')|list }} {{ [1,2,3,4,5]|slice(2)|list }} {{ [1,2,3]|slice(2, 'x')|list }} {{ []|batch(2)|list }} {{ [1]|slice(3)|list }}
{{ objs|groupby('g') }}
{% for g, items in objs|groupby('g') %}{{ g }}:{{ items|length }};{% endfor %}
{% for x in objs|groupby('g') %}{{ x.grouper }}={{ x.list|map(attribute='n')|join('+') }};{% endfor %}
{% for x in objs|groupby('h', default='none') %}{{ x.grouper }}={{ x.list|length }};{% endfor %}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, false, true) }}|{{ 'a\nb'|indent('>>') }}|{{ 'a\n'|indent(2) }}|{{ ''|indent }}|{{ 'a\nb'|indent(width=3, first=True) }}
~{{ 5|indent }}
{{ '<a href="x">\'&'|escape }} {{ '<b>'|e }} {{ '<b>'|safe }} {{ 'a' + ('<b>'|safe) }} {{ '<i>' + ('<b>'|safe) }} {{ ('<b>'|safe) + '<i>' }} {{ ('<b>'|safe) ~ '<i>' }} {{ ['<'|e] }} {{ '<'|e|e }} {{ '<'|e|forceescape }} {{ ('<b>'|safe)|replace('b','<') }} {{ ('<B> '|safe|lower|trim) + '<' }}
{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '..', 0) }} {{ 'x'|truncate(2) }}
{{ 'foo bar'|wordcount }} {{ "it's a-b c_d é1"|wordcount }} {{ 'a'|center(5) }}| {{ 'a b&c/d'|urlencode }} {{ {'a b': 'c&d', 'e': 1}|urlencode }}
{{ '%s is %d and %.2f'|format('a', 5, 1.234) }} {{ '%(a)s'|format(a=5) }} {{ '%s' % 'x' }} {{ '%s %s' % ('a', 'b') }} {{ '%5d|%-5d|%05d|%+d' % (42, 42, 42, 42) }} {{ '%x %X %o %#x' % (255, 255, 8, 255) }} {{ '%r' % 'a' }} {{ '%5s|%-5s|%.2s' % ('a', 'b', 'cde') }} {{ '%e %g %G' % (12345.678, 12345.678, 0.00001) }} {{ '%c%c' % (65, 'b') }} {{ '100%%' % () }} {{ '%d' % 3.99 }} {{ '%s' % [1] }} {{ '%(a)s %(b)r' % {'a': 1, 'b': 'x'} }} {{ '%*d' % (5, 42) }} {{ '%f' % 1 }} {{ '%s' % none }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'a' }}
{{ '%q' % 1 }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 'a') }} {{ '{a}'.format(a=5) }} {{ '{0.x} {0[y]}'.format({'x': 1, 'y': 2}) }} {{ '{:>5}|{:<5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd') }} {{ '{:05d} {:x} {:b} {:o} {:#x} {:,} {:+}'.format(42, 255, 5, 8, 255, 1234567, 5) }} {{ '{:.2f} {:e} {:g} {:%} {:.1%}'.format(1.2345, 12345.678, 0.0001, 0.5, 0.256) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{{}} {}'.format(1) }} {{ '{:{w}}|'.format('a', w=4) }} {{ '{:.3}'.format('abcdef') }} {{ '{:10.3f}|'.format(3.14159) }} {{ '{}'.format([1, 'a']) }} {{ '{:,.2f}'.format(1234567.891) }} {{ '{:d}'.format(true) }} {{ '{}'.format(1.0) }} {{ '{:5}|'.format(1.5) }} {{ '{0[1]}'.format([1,2]) }}
{{ '{}'.format() }}
{{ '{a}'.format() }}
{{ '{:d}'.format('a') }}
{{ '{:d}'.format(1.5) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{0} {}'.format(1, 2) }}
{{ '{:x<}'.format([1]) }}
{{ d|tojson }} {{ [1, 1.0, 'a', none, true, (1,2)]|tojson }} {{ 'é"\\\n\t\x01\x7f😀'|tojson }} {{ {'a': {'b': []}, 'c': {}}|tojson(indent=2) }} {{ [1,[2]]|tojson(indent=4) }} {{ {'b':1,'a':2}|tojson(sort_keys=true) }} {{ [1,{'a':1}]|tojson(separators=(',', ':')) }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ {1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson }} {{ 1e100|tojson }} {{ ('inf'|float)|tojson }} {{ []|tojson(indent=2) }} {{ {'a':1}|tojson(indent='--') }} {{ [1]|tojson(indent=0) }} {{ '</script>'|tojson }} {{ d|tojson(true) }}
{{ undefined_var|tojson }}
{{ [undefined_var]|tojson }}
{{ d.items()|tojson }}
{{ {(1,2): 3}|tojson }}
{{ [1]|map('string')|tojson }}
{{ {1:1,'a':2}|tojson(sort_keys=true) }}
{{ bigs }} {{ bigs|tojson }} {{ bigs[0] == 123456789012345678901234567890 }} {{ bigs[0] > 5 }} {{ -bigs[0] }} {{ bigs[0] is integer }} {{ bigs[0] is odd }} {{ 9223372036854775807 }} {{ 9223372036854775808 }} {{ -9223372036854775808 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.0_1 }}
{{ 1 is number }} {{ 1.0 is number }} {{ true is number }} {{ '1' is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ 'a' is string }} {{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ 'a' is iterable }} {{ 5 is iterable }} {{ d is sequence }} {{ l is sequence }} {{ 'a' is sequence }} {{ 5 is sequence }} {{ undefined_var is sequence }} {{ none is none }} {{ undefined_var is none }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ true is boolean }} {{ 1 is boolean }} {{ range is callable }} {{ 'a' is callable }} {{ undefined_var is callable }} {{ undefined_var is iterable }}
{{ 1 is odd }} {{ 2 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is le 1 }} {{ 2 is gt 1 }} {{ 2 is ge 3 }} {{ 1 is in [1] }} {{ 1 is not in [1] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is equalto 1.0 }} {{ true is sameas true }} {{ 1 is sameas true }} {{ none is sameas none }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 'x' is filter }} {{ 1 is defined and 2 is even }} {{ x is not defined }} {{ 5 is lessthan 6 }} {{ ('a'|e) is escaped }}
{{ 'a' is odd }}
{{ 1 is defined is defined }}
{% set x = 5 %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c + d2 }}{% set e = 1, 2 %}{{ e }}
{% set a, b = 1, 2, 3 %}
{% set a, b = [1] %}
{% set a, b = 5 %}
{% set x %}hello {{ 1 + 1 }}{% endset %}[{{ x }}]{% set y | upper | trim %}  abc {% endset %}[{{ y }}]{% set z | replace('a', 'b') %}aaa{% endset %}{{ z }}
{% set ns = namespace(a=1) %}{{ ns.a }}{% set ns.a = 5 %}{{ ns.a }}{% set ns.b = [1] %}{{ ns.b }}{{ ns }}{{ ns.zz is defined }}{{ ns['a'] }}{% set ns.a, x = 7, 8 %}{{ ns.a }}{{ x }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% for i in [1,2,3] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}
~{% set ns = namespace() %}{{ ns.missing.x }}
{% set ns = namespace(_x=1) %}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set d.x = 5 %}
{% set nope.x = 5 %}
{% set ns = namespace(found=false) %}{% for x in [1,2,3] %}{% if x == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}
{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}
{% for i in [1,2] %}{% if i == 1 %}{% set q = i %}{% endif %}[{{ q }}]{% endfor %}
{% for i in [1,2] %}{{ v }}{% set v = i %}{{ v }}{% endfor %}{{ v }}
{% for i in [1] %}{% set v = 5 %}{{ v }}{% endfor %}{{ v }}
{% for i in [1] %}[{{ v }}]{% endfor %}{% set v = 5 %}
{% if true %}{{ v }}{% endif %}{% set v = 5 %}{{ v }}
{% if false %}{% set v = 5 %}{% endif %}{{ v }}
{% if false %}{% set w = 5 %}{% else %}{{ w is defined }}{% endif %}{{ w is defined }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {{ loop.previtem }}/{{ loop.nextitem }} {{ loop.cycle('a','b') }}{{ loop.changed(x) }};{% endfor %}
{% for x in [1,1,2] %}{{ loop.changed(x) }},{% endfor %}
{% for x in [1,2] %}{{ loop }}{% endfor %}
{% for x in [] %}a{% else %}empty{% endfor %}{% for x in undefined_var %}a{% else %}none{% endfor %}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'aé' %}[{{ c }}]{% endfor %}{% for k, v in d|items %}{{ k }}{% endfor %}
{% for a, b in [[1,2],[3,4]] %}{{ a }}{{ b }}{% endfor %}{% for a, (b, c) in [[1,[2,3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [[1,2,3]] %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for x in [1,2,3,4,5] if x is odd %}{{ loop.index }}:{{ x }}:{{ loop.last }} {% endfor %}{% for x in [1,2] if x > 5 %}{% else %}none{% endfor %}
{% for x in [1,2,3] if x > 1 %}{{ loop.length }}{{ loop.revindex }}{% endfor %}
{% set ns = namespace(stop=false) %}{% for x in [1,2,3] if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}
{% for a, b in [[1,2],[3,4]] if b > 2 %}{{ a }}{% endfor %}
{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1,2] %}{% continue %}{% else %}else{% endfor %}{% for x in [1,2] %}{% break %}{% else %}else{% endfor %}{% for x in [1,2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}no{% endfor %}
~{% break %}
~{% for x in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for x in [1,2] %}{% for y in [1,2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% for x in [1,2] %}{% set t %}a{% if x == 1 %}{% continue %}{% endif %}b{% endset %}{{ t }}{% endfor %}
{% for x in tree recursive %}{{ x.n }}{{ loop.depth }}{% if x.c %}({{ loop(x.c) }}){% endif %}{% endfor %}
{% for x in tree recursive %}{{ loop.index }}{% else %}e{% endfor %}
{% for x in [1] %}{{ loop(x) }}{% endfor %}
{% for x in [1,2] %}{% for y in [1,2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for loop in [1] %}{% endfor %}
{% for x in [1] %}{% set loop = 1 %}{% endfor %}
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 5) }} {{ m(1, c=3) }} {{ m(a=9) }} {{ m() }} {{ m.name }} {{ m }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(1, zz=2) }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}
{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(5) }}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * (fact(n - 1)|int) }}{% endif %}{% endmacro %}{{ fact(10) }}
{% macro outer(x) %}<{{ caller() }}|{{ x }}>{% endmacro %}{% call outer(1) %}body{% endcall %}
{% macro outer() %}{% for i in [1,2] %}{{ caller(i, b=i*2) }}{% endfor %}{% endmacro %}{% call(a, b=0) outer() %}[{{ a }}{{ b }}]{% endcall %}
{% macro m() %}{{ caller }}{% endmacro %}[{{ m() }}]
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}{% set x = 5 %}{{ m() }}
{% macro m() %}{{ gv }}{% endmacro %}{{ m() }}
{% if true %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}
{% call 5 %}{% endcall %}
{% filter upper %}abc {{ 'def' }}{% endfilter %}{% filter replace('a', 'b')|trim %} aaa {% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}
{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% raw %}{{ x }}{% y %}{# z #}{% endraw %}
{%- raw -%}   a   {%- endraw -%}   b
{% block foo %}in block {{ gv }}{% endblock %}{% set tt = 3 %}{% block bar %}{{ tt }}{% endblock bar %}
{% generation %}assistant {{ gv }}{% endgeneration %}|{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{% for m in [1,2] %}{%- generation -%}  {{ m }}  {%- endgeneration -%}{% endfor %}
{# comment #}a{#- strip -#} b {# multi
{% print 1, 'a' %}
{% if x %}{% elif 0 %}a{% elif gv %}b{% else %}c{% endif %}
{% if 1 %}a{% if 0 %}b{% else %}c{% endif %}d{% endif %}
{{ range(5)|list }} {{ range(2, 4)|list }} {{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([('a', 1)]) }}
{{ range(200000) }}
{{ range('a') }}
{{ range(1, 2, 0) }}
{{ dict([1]) }}
{{ dict(5) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}
{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}{% set j2 = joiner() %}{{ j2() }}{{ j2() }}
{{ raise_exception('my message: ' ~ 5) }}
{{ raise_exception('line1\nline2') }}
~{{ raise_exception() }}
{% if true %}{{ raise_exception("It's é") }}{% endif %}
{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %d, %Y %j %p %I') }} {{ strftime_now('') }}| {{ strftime_now('%f %z %%') }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1.0 / 0 }}
{{ 'a' - 1 }}
{{ [1] + 'a' }}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ none + 1 }}
{{ {} + {} }}
{{ 'a' * 'b' }}
{{ -'a' }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ d < d }}
{{ 1 in 5 }}
{{ 1 in 'a' }}
{{ 1 in none }}
{{ [] in {} }}
{{ {[]: 1} }}
{{ 5() }}
{{ 'abc'() }}
{{ none() }}
{{ d.a() }}
{{ foo
{{ 'abc }}
{% if %}
{% if x %}
{% for %}
{% endif %}
{% foo %}
{% for x in y %}{% endif %}
{% if x %}{% endfor %}{% endif %}
{{ }}
{{ 1 2 }}
{{ (1 }}
{{ 1) }}
{{ [1}
{{ a.1b }}
{{ a! }}
{{ a..b }}
{{ a[ }}
{% set %}
{% set x %}
{% set 1 = 2 %}
{% set x. = 2 %}
{% macro %}
{% macro m(a=1, b) %}{% endmacro %}
{% raw %}
{# unclosed
{{ '\x4' }}
~{{ '\N{DASH}' }}
{% include 'x' %}
{% if 0 %}{% include 'x' %}{% endif %}ok
{% extends 'x' %}
{% do 1 %}
{{ "a" if }}
{{ x | }}
{{ x is }}
{{ f(a=1, 2) }}
{{ f(**d, *l) }}
{{ f(*l, 1) }}
{{ dict(**d) }} {{ range(*[1, 4])|list }} {{ '{} {}'.format(*['a', 'b']) }} {{ '{a}'.format(**d) }}
{{ 'x'.join(l|map('string')) }} {{ l|map('string')|list }} {{ (l|map('string')) is iterable }} {{ true if l|select else false }}
{% set g = [1,2]|select %}{{ g|list }}{{ g|list }}
{{ ([1,2]|select)|length }}
{{ ([1,2]|select)[0] is defined }}
{{ [1,2,3] == [1,2,3] }} {{ (1,2) == [1,2] }} {{ {'a':1} == {'a':1.0} }} {{ 'a' != 'b' }} {{ [1] != [2] }} {{ none == none }} {{ none == false }}
{{ {'a': {'b': {'c': 1}}}.a.b.c }} {{ [[1, 2], [3]][0][1] }} {{ {'a b': 1}['a b'] }} {{ l.0 }} {{ [[1,2]].0.1 }}
{{ d['a'] if 'a' in d else 'no' }} {{ (d or {}).get('a') }} {{ d.get('a') is not none }}
{{ 'a' if undefined_var else 'b' }} {{ undefined_var or 'dflt' }} {{ undefined_var and 1 }} {{ not undefined_var }} {{ 1 in undefined_var }}
{{ undefined_var in 'abc' }}
{{ '' is defined }} {{ none|default('x') }} {{ none|default('x', true) }} {{ ''|d('x', boolean=true) }} {{ 0|default(1) }} {{ undefined_var|default }}| {{ d.zz|default('q') }}
{{ undefined_var.foo|default('x') }}
{{ s|upper|lower|title }} {{ s | replace('h', 'j') | upper }} {{ -5|abs }} {{ (-5)|abs|string|length }} {{ not 1|abs }}
{{ 'a'|attr('upper') is defined }} {{ d|attr('a') is defined }} {{ 'abc'|attr('upper')() }}
{% if true -%}   
  x   
{%- endif %}
  {%+ if true %}a{%+ endif +%}
{{ 'a' }}  
a {%- if true %} b {% endif -%} c
{# c #}
{{"x"}}{{'y'}}{%if 1%}z{%endif%}
{% for x in [1,2] %}
  - {{ x }}
	{% if 1 %}	tab{% endif %}
x {% if 1 %}y{% endif %}
{{ '{{' }} {{ '}}' }} {{ '{%' }} { { } } {a} % }
{{ {'a': {'b': 1}} }}{{ {'a':{'b':{}}}}}
{{ 1 -}} x {{- 2 }}
{{ 1 - 1 }}{{ 1 -1 }}{{1-1}}
a\r\nb\rc
{{ loop }}{{ loop is defined }}
{{ messages }} {{ tools }} {{ documents }} {{ add_generation_prompt }}
{{ messages[0]['role'] }} {{ messages|length }} {{ messages[0].content }} {{ bos_token }}
{{ loop.index if loop is defined else 'none' }}
{%- for message in messages %}{{ '<' + message['role'] + '>' + message['content'] | trim + '</' }}{% endfor %}
{{ "x" ~ ["a"] ~ {"b": 1} ~ (1,) }}
{{ ['a', 'b'][1] ~ 'c' }} {{ 'abc'[1] }} {{ 'abc'[-2:] }} {{ ('a' ~ 'b')|upper }}
{{ 1 if true else 2 if true else 3 }} {{ (1 if false else 2) + 3 }}
{% set x = 'a' if true else 'b' %}{{ x }}{% set y = [1, 2] if false %}[{{ y }}]
{{ (1 if false).x }}
{% autoescape false %}<{{ '<' }}{% endautoescape %}
{{ '%s' % undefined_var }} {{ '%d' % true }}
{{ 'é'|urlencode }} {{ 'ABC'|lower|capitalize }} {{ 'a\u0301'|length }}
{{ 'x' * 3 ~ '-' * 2 }} {{ 'ab' * 0 }}| {{ 'ab' * -1 }}|
{{ 10|string|int + 5 }} {{ '5' * 2 }} {{ '5'|int * 2 }}
{{ [1, 2, 3][-2:][0] }} {{ messages[::-1]|length }} {{ (messages|length - 1) - 0 }}
{{ 3.0 }} {{ 3.10 }} {{ 100000000000000000000.0 }} {{ 1e22 }} {{ 1e21 }} {{ 123e-7 }} {{ 2.0 ** 0.5 }} {{ 10 / 4 }} {{ 2 ** 62 }} {{ 1e-5 }} {{ 0.00001234 }} {{ 5.684341886080802e-14 }} {{ 9007199254740993.0 }} {{ 4.35 }} {{ 0.1 }} {{ 100.0 }} {{ 1.0e10 }}
{{ "unclosed
{% set a = {'x': [1, {'y': 2}]} %}{{ a.x[1].y }}{{ a['x'][1]['y'] }}
{{ messages[0].keys()|list }} {{ messages[0].items()|list }} {{ messages[0] }}
{%- macro f(x) -%} [{{ x }}] {%- endmacro -%} {{ f(1) }} {{ f('a') }}
{% for i in range(3) %}{{ i }}{{ "," if not loop.last }}{% endfor %}
{% for i in range(3) -%}   {{ i }}   {%- endfor %}
{{ 'a' is string and 'b' is string }} {{ 1 is string or 'b' is string }} {{ 'a' is not string }}
{{ 1 == 1 and 2 == 2 or 3 == 4 }} {{ not 1 == 2 }} {{ 1 if not x else 2 }}
{% set text = "line1\nline2" %}{{ text }}{{ text|replace("\n", "\\n") }}{{ '\\n' }}{{ "\\" }}
{{ 'caf\u00e9' }} {{ '\U0001F600' }} {{ '\x41' }} {{ '\101' }} {{ '\q' }} {{ '\é' }}
{{ "a" "b" ~ "c" }}
{{ {}|length }} {{ {}.items()|list }} {{ {}.get('x') }} {{ {} or 'e' }}
{{ l|sum / l|length }} {{ l|max - l|min }}
{{ [1,2,3]|map('string')|map('upper')|join('') }} {{ l|list == l }} {{ [d]|map(attribute='a')|first }}
{{ ['a','b','c']|select('in', 'ab')|list }} {{ [{'type':'text','text':'x'},{'type':'image'}]|selectattr('type','equalto','text')|map(attribute='text')|join }}
{{ [{'r':1},{'r':none},{}]|selectattr('r')|list }} {{ [{'r':1},{'r':none},{}]|selectattr('r','none')|list }} {{ [{'r':1},{}]|selectattr('r','defined')|list }} {{ [{'r':1},{}]|rejectattr('r','defined')|list }}
{{ 'The quick-brown fox -- jumps, really; over supercalifragilistic e-mail--boxes'|wordwrap(9) }}
{{ 'a bb  ccc\tdddd\n\n  e f'|wordwrap(4) }}|{{ 'known-well'|wordwrap(7, break_on_hyphens=false) }}|{{ 'abcdefgh ij'|wordwrap(3, false, '/') }}|{{ 'x-y-z-b'|wordwrap(2) }}|{{ ''|wordwrap }}
{{ 'a'|wordwrap(0) }}
{{ 5|wordwrap }}
{{ undefined_var|wordwrap }}
{{ '<p>a  <b>b</b>\n c</p><!-- <x> -->d &amp; &lt;e&gt; &#65;&#x42;'|striptags }}|{{ 'a < b'|striptags }}|{{ 7|striptags }}|{{ '<a'|striptags }}|{{ ('<b>x</b>'|e)|striptags }}
{{ {'id': 1, 'class': 'a"b', 'none': none, 'u': undefined_var}|xmlattr }}|{{ {'a': 1}|xmlattr(false) }}|{{ {}|xmlattr }}
{{ {'a b': 1}|xmlattr }}
{{ {1: 1}|xmlattr }}
{{ 'x'|xmlattr }}
{{ 1|filesizeformat }} {{ 0|filesizeformat }} {{ 999|filesizeformat }} {{ 1000|filesizeformat }} {{ 1234567|filesizeformat }} {{ 1e24|filesizeformat }} {{ 1e30|filesizeformat }} {{ 1024|filesizeformat(true) }} {{ '2048'|filesizeformat(binary=true) }} {{ -5|filesizeformat }} {{ 1.5|filesizeformat }}
{{ 'x'|filesizeformat }}
{{ none|filesizeformat }}
{{ {'b': 1, 'a': [1, 'x', none]}|pprint }} {{ 'text'|pprint }} {{ ''|pprint }} {{ (1,)|pprint }} {{ {2: 1, 'a': 2, 1: 3, none: 4}|pprint }}
{{ {'name': 'get_weather', 'parameters': {'type': 'object', 'properties': {'city': {'type': 'string', 'description': 'the city'}}}, 'list': range(40)|list}|pprint }}
{{ 'a text that is longer than eighty columns, and that has to be broken behind some word of it'|pprint }}
{{ ['a text that is longer than eighty columns,\nand that has to be broken behind some word of it, twice over', ('short',), ['x' * 90]]|pprint }}
{{ none|indent }}
{{ [1]|indent }}
{{ [] is filter }}
{{ {} is test }}
{% set n = namespace(a=1) %}{{ n.b.c }}
{% macro m() %}{% endmacro %}{{ m.b.c }}
{{ ('x'|e).b.c }}
{% for x in [1] %}{{ loop.b.c }}{% endfor %}
{{ cycler(1).b.c }}
{{ [1]|round(0, 'floor') }}
"""

MULTI_LINE = [
    '  {% if true %}  \n  x\n  {% endif %}  \ny\n',
    '{% if true -%}   \n  x   \n{%- endif %}\ny',
    '  {%+ if true %}a{%+ endif +%}\nb',
    "{{ 'a' }}  \n{{- 'b' -}}  \nc\n\n",
    'a\n{# c #}\nb\n   {# c #}   \nb {# d\n e #} f\n',
    '{%- set x = 1 -%}\n{{ x }}\n',
    '{% for x in [1,2] %}\n  - {{ x }}\n{% endfor %}\nend',
    '\t{% if 1 %}\ttab{% endif %}\nx {% if 1 %}\ny{% endif %}\n',
    'a\r\nb\rc\r\n{% if 1 %}\r\nd{% endif %}\r\n',
    '\n\n{% if 1 %}\n\n\nx\n{% endif %}\n\n',
    '{% raw %}\n {{ x }}\n{% endraw %}\nz',
    '  {% raw %}  \n a {% endraw %}  \nz',
    'x\n  {%- if 1 %}\n y\n  {%- endif %}\nz',
    'x  \n\n  {{- 1 }}\n\n',
    '{{ 1\n+\n2 }}\n{{ x.y.z }}',
    "a\n\n{{ raise_exception('l3') }}",
    '{% set x = [\n  1,\n  2,\n] %}{{ x }}',
    "{{ {\n'a': 1,\n} }}",
    '{%- if 1 -%}\n\n  a\n\n{%- else -%}\n b\n{%- endif -%}\n\n c',
    '{% if 1 +%}\n a{% endif %}',
    '{#- x -#}\n a\n{#+ y +#}\n b',
    '\xa0{% if 1 %}\u3000{% endif %}\u2028x',
    '  {{ 1 }}\n  {% set a = 1 %}  {% set b = 2 %}\n{{ a }}',
    'line{% if 1 %}\n{% endif %}\n{% if 1 %}\n{% endif %}end',
    '{%\nif 1\n%}\nx{%\nendif\n%}\n',
    "{{ 'multi\nline' }}",
    '{% raw -%}\n a {%- endraw %}',
    '{%- raw %}a{% endraw -%}  b',
    '{{ x }}\n{# unclosed',
    '{#',
    'a {#',
    '{% raw %}',
    '{{',
    '{%',
    '{',
    '',
    '\n',
    '\n\n',
    "{{ [1,\n2,\n'a' + 1] }}",
    'a{# x #}\n{# y #}\nb',
    '  {# x #}  y',
]

VARIABLES = {'d': {'a': 1, 'b': 'x', 'c': [1, 2.0, None]}, 'l': [1, 2, 3, 4], 's': 'hello', 'u': 'aé日😀b', 'i': 5, 'gv': 'GV', 'v': 'ctxv', 'k': {'items': 'it', 'keys': 1}, 'objs': [{'n': 3, 's': 'c', 'g': 'x', 'in': {'k': 1}}, {'n': 1, 's': 'a', 'g': 'Y', 'in': {'k': 2}}, {'n': 2, 's': 'b', 'g': 'x', 'in': {}, 'h': 1}], 'tree': [{'n': 'a', 'c': [{'n': 'b', 'c': []}, {'n': 'c', 'c': [{'n': 'd'}]}]}, {'n': 'e'}], 'bigs': [123456789012345678901234567890, -99999999999999999999]}
