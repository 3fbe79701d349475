# Definitions become the container image, where a cluster's site names one: `make image`.


rule image:
    log:
        f"{RESULTS}/image.log",
    resources:
        **cpu_resources(),
    message:
        f"Container image {study.site.image}"
    shell:
        'python "$SAGEBENCH_SCRIPTS/build_image.py" --study "$SAGEBENCH_FROZEN_STUDY"'
        " 2>&1 | tee -i {log:q}"
