# cloud-init's own way from the arguments of the kernel to the configuration that Ubuntu's installer
# reads, which this prints. The arguments are what DEBUG_PROC_CMDLINE says, cloud-init's own name for
# it; the folders that it writes to are of the mount namespace that this runs in.
import json
import os
import sys

os.environ["CLOUD_CFG"] = "/run/cloud.cfg"
with open(os.environ["CLOUD_CFG"], "w") as file:
    # No disk of this machine is looked at.
    nowhere = {"NoCloud": {"fs_label": None}}
    json.dump({"datasource_list": ["NoCloud"], "datasource": nowhere}, file)

from cloudinit import sources, stages

# What `cloud-init init` does once the network is up.
boot = stages.Init(ds_deps=[sources.DEP_FILESYSTEM, sources.DEP_NETWORK])
boot.read_cfg()
boot.initialize()
source = boot.fetch(existing="check")
boot.instancify()
boot.update()
boot.consume_data()
# What subiquity asks it then.
installer = stages.Init()
installer.read_cfg()
installer.fetch(existing="trust")
json.dump(
    {
        "instance": source.get_instance_id(),
        "hostname": source.metadata["local-hostname"],
        "vendor": source.get_vendordata_raw().decode(),
        "autoinstall": installer.cloudify().cfg["autoinstall"],
    },
    sys.stdout,
)
