{#- Before partman looks at the disks: which they are, and what shall be on them. -#}
{% include "common/di-start.sh" %}
{% include "common/disks.sh" %}

{% include "common/wipe.sh" %}
{% include "common/partman.sh" %}
