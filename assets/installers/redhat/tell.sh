{# No seq and no tr: there are none in the installer of 6. -#}
{%- if ca is defined and (answers['pre.sh'] is defined or answers['post.sh'] is defined) %}
# The answers' CA, and no other.
cat >/tmp/answers.pem <<'CA'
{{ ca }}
CA
export CURL_CA_BUNDLE=/tmp/answers.pem

{% endif -%}
# tell WORD TIMES FILE: a last word to the server, with what is in the file, until it is heard.
tell() {
    try=0
    until curl -fsS -m 10 -o /dev/null --data-binary "@$3" "{{ report }}/$1"; do
        try=$((try + 1))
        [ "$try" -lt "$2" ] || return
        sleep 10
    done
}
