"""Makes the files of a release from one tag: wheel, charts, manifest, bills of materials, checksums, signatures."""
