{#- in-target's own standard input is where debconf answers: nothing but the script may have another. -#}
{%- if answers['post.sh'] is defined %}

# The user's own, in the new system.
test -e /tmp/post.sh || { wget -q -O /tmp/post.new {{ answers['post.sh'] }} && mv /tmp/post.new /tmp/post.sh; }
cp /tmp/post.sh /target/tmp/post.sh
in-target sh -c 'DEBIAN_FRONTEND=noninteractive sh /tmp/post.sh </dev/null'
rm -f /target/tmp/post.sh
{%- endif %}

# The last word: this machine boots its own disk from now on. A report that is lost means another
# wipe: it is tried for 15 minutes and more. Files of your own end with
#   wget -q -O /dev/null {{ report }}/done
tell done
