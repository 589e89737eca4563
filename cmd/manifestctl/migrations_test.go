package main

// peers is the table of TestMigrating and docs/migrating.md.
var peers = []peer{
	{
		name: "docker manifest",
		intro: "Drafts lie in the local store. Sources may be lists, in another registry, or not pushed at all; `create --import-docker`\n" +
			"takes over a draft that `docker manifest create` made.",
		migrations: []migration{
			{
				doing:  "Create a list, say what its images are, push it",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app-amd64:v1 $REG/app-armv7:v1", "docker manifest annotate $LIST:v1 $REG/app-armv7:v1 --os linux --arch arm --variant v6", "docker manifest push $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app-amd64:v1 $REG/app-armv7:v1", "manifestctl annotate $LIST:v1 $REG/app-armv7:v1 --os linux --arch arm --variant v6", "manifestctl push $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm/v6"}},
			},
			{
				doing:  "Add to a list that exists",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app-amd64:v1", "docker manifest create --amend $LIST:v1 $REG/app-s390x:v1", "docker manifest push $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app-amd64:v1", "manifestctl create --amend $LIST:v1 $REG/app-s390x:v1", "manifestctl push $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x"}},
			},
			{
				doing:  "Windows: the version of the operating system",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app-windows:v1", "docker manifest annotate --os-version 10.0.17763.1 --os-features win32k $LIST:v1 $REG/app-windows:v1", "docker manifest push $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app-windows:v1", "manifestctl annotate --os-version 10.0.17763.1 --os-features win32k $LIST:v1 $REG/app-windows:v1", "manifestctl push $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", holds: []string{`"os.version":"10.0.17763.1"`, `"os.features":["win32k"]`}}},
			},
			{
				doing:  "Push and forget the draft",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app-amd64:v1", "docker manifest push --purge $LIST:v1", "docker manifest inspect $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app-amd64:v1", "manifestctl push --purge $LIST:v1", "manifestctl exists $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64"}},
				exit:   1,
			},
			{
				doing:  "A registry without TLS",
				theirs: []string{"docker manifest create --insecure $LIST:v1 $REG/app-amd64:v1", "docker manifest push --insecure $LIST:v1"},
				ours:   []string{"manifestctl create --insecure $LIST:v1 $REG/app-amd64:v1", "manifestctl push --insecure --plain-http $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64"}},
			},
			{
				doing:  "Look at a list, and at everything in it",
				theirs: []string{"docker manifest inspect $REG/app:multi", "docker manifest inspect -v $REG/app:multi"},
				ours:   []string{"manifestctl inspect --raw $REG/app:multi", "manifestctl inspect -v $REG/app:multi"},
				stdout: "linux/arm64, 1 layer",
			},
			{
				doing:  "Remove a draft",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app-amd64:v1", "docker manifest rm $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app-amd64:v1", "manifestctl rm $LIST:v1"},
			},
			{
				doing:  "A list of lists, and of another registry (which `docker manifest` refuses)",
				theirs: []string{"docker manifest create $LIST:v1 $REG/app:multi $OTHER/app:armv7"},
				ours:   []string{"manifestctl create $LIST:v1 $REG/app:multi $OTHER/app:armv7", "manifestctl push $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64 linux/s390x linux/arm/v7"}},
			},
		},
	},
	{
		name:  "podman manifest, buildah manifest",
		intro: "",
		migrations: []migration{
			{
				doing:  "Create an empty list, add images, push it",
				theirs: []string{"podman manifest create $LIST:v1", "podman manifest add $LIST:v1 docker://$REG/app:amd64", "podman manifest add --arch arm --variant v6 $LIST:v1 docker://$REG/app:armv7", "podman manifest push --all $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1", "manifestctl add $LIST:v1 docker://$REG/app:amd64", "manifestctl add --arch arm --variant v6 $LIST:v1 docker://$REG/app:armv7", "manifestctl push --all $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm/v6"}},
			},
			{
				doing:  "All images of a list",
				theirs: []string{"podman manifest create --all $LIST:v1 docker://$REG/app:multi", "podman manifest push $LIST:v1 oci:$DIR/out:v1"},
				ours:   []string{"manifestctl create --all $LIST:v1 docker://$REG/app:multi", "manifestctl push $LIST:v1 oci:$DIR/out:v1"},
				want:   []outcome{{ref: "oci:$DIR/out:v1", platforms: "linux/amd64 linux/arm64 linux/s390x"}},
			},
			{
				doing:  "One image of a list",
				theirs: []string{"podman manifest create $LIST:v1", "podman manifest add --os linux --arch s390x $LIST:v1 docker://$REG/app:multi", "podman manifest push $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1", "manifestctl add --os linux --arch s390x $LIST:v1 docker://$REG/app:multi", "manifestctl push $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/s390x"}},
			},
			{
				doing:  "Annotations: of an entry, of the list",
				theirs: []string{"podman manifest create --annotation of=list $LIST:v1 docker://$REG/app:arm64", "podman manifest annotate --annotation left=right $LIST:v1 $ARM64", "podman manifest annotate --index --annotation more=list $LIST:v1", "podman manifest push $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create --annotation of=list $LIST:v1 docker://$REG/app:arm64", "manifestctl annotate --annotation left=right $LIST:v1 $ARM64", "manifestctl annotate --index --annotation more=list $LIST:v1", "manifestctl push $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", holds: []string{`"annotations":{"left":"right"}`, `"annotations":{"of":"list","more":"list"}`}}},
			},
			{
				doing:  "What a list is about",
				theirs: []string{"podman manifest create $LIST:v1 docker://$REG/app:arm64", "podman manifest annotate --index --subject docker://$REG/app:amd64 $LIST:v1", "podman manifest push $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 docker://$REG/app:arm64", "manifestctl annotate --index --subject docker://$REG/app:amd64 $LIST:v1", "manifestctl push $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", holds: []string{`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$AMD64"`}}},
			},
			{
				doing:  "Remove an entry",
				theirs: []string{"podman manifest create --all $LIST:v1 docker://$REG/app:multi", "podman manifest remove $LIST:v1 $ARM64", "podman manifest push --rm $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create --all $LIST:v1 docker://$REG/app:multi", "manifestctl remove $LIST:v1 $ARM64", "manifestctl push --rm $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x"}},
			},
			{
				doing:  "Docker's form, and the digest in a file",
				theirs: []string{"podman manifest create $LIST:v1 docker://$REG/app:amd64", "podman manifest push --format v2s2 --digestfile $DIR/digest --tls-verify=false $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 docker://$REG/app:amd64", "manifestctl push --format v2s2 --digestfile $DIR/digest --tls-verify=false $LIST:v1 docker://$LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", holds: []string{`"application/vnd.docker.distribution.manifest.list.v2+json"`}}},
			},
			{
				doing:  "Make a list anew or add to it, ask for it, remove it",
				theirs: []string{"podman manifest create $LIST:v1", "podman manifest create --amend $LIST:v1 docker://$REG/app:amd64", "buildah manifest create --replace $LIST:v1 docker://$REG/app:arm64", "podman manifest exists $LIST:v1", "podman manifest rm $LIST:v1", "podman manifest rm -i $LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1", "manifestctl create --amend $LIST:v1 docker://$REG/app:amd64", "manifestctl create --replace $LIST:v1 docker://$REG/app:arm64", "manifestctl exists $LIST:v1", "manifestctl rm $LIST:v1", "manifestctl rm -i $LIST:v1"},
			},
			{
				doing:  "Files as an artifact",
				theirs: []string{"podman manifest create $LIST:v1 docker://$REG/app:amd64", "podman manifest add --artifact --artifact-type application/x.config --artifact-annotation a=b --annotation c=d $LIST:v1 $DIR/spec.yaml", "podman manifest push $LIST:v1 docker://$LIST:v1"},
				ours:   []string{"manifestctl create $LIST:v1 docker://$REG/app:amd64", "manifestctl add --artifact --artifact-type application/x.config --artifact-annotation a=b --annotation c=d $LIST:v1 $DIR/spec.yaml", "manifestctl push $LIST:v1 docker://$LIST:v1", "manifestctl inspect --tree $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 ?", holds: []string{`"artifactType":"application/x.config"`, `"annotations":{"c":"d"}`}}},
				stdout: "org.opencontainers.image.title=spec.yaml",
			},
			{
				doing:  "Look at a draft",
				theirs: []string{"podman manifest create mylist:v1 docker://$REG/app:arm64", "podman manifest inspect mylist:v1"},
				ours:   []string{"manifestctl create mylist:v1 docker://$REG/app:arm64", "manifestctl inspect --raw mylist:v1"},
				stdout: "$ARM64",
			},
		},
	},
	{
		name:  "docker buildx imagetools",
		intro: "`create` is `merge`; nothing runs but the command itself.",
		migrations: []migration{
			{
				doing:  "Create an index of images, under several tags",
				theirs: []string{"docker buildx imagetools create -t $LIST:v1 -t $LIST:latest $REG/app:amd64 $REG/app:arm64"},
				ours:   []string{"manifestctl merge -t $LIST:v1 -t $LIST:latest $REG/app:amd64 $REG/app:arm64"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64"}, {ref: "$LIST:latest", platforms: "linux/amd64 linux/arm64"}},
			},
			{
				doing:  "Add to what a tag holds",
				theirs: []string{"docker buildx imagetools create -t $LIST:v1 $REG/app:amd64", "docker buildx imagetools create --append -t $LIST:v1 $REG/app:s390x"},
				ours:   []string{"manifestctl merge -t $LIST:v1 $REG/app:amd64", "manifestctl merge --append -t $LIST:v1 $REG/app:s390x"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x"}},
			},
			{
				doing:  "Only say what would be",
				theirs: []string{"docker buildx imagetools create --dry-run -t $LIST:v1 $REG/app:amd64 $REG/app:arm64"},
				ours:   []string{"manifestctl merge --dry-run -t $LIST:v1 $REG/app:amd64 $REG/app:arm64"},
				want:   []outcome{{ref: "$LIST:v1", gone: true}},
				stdout: `"digest":"$ARM64"`,
			},
			{
				doing:  "Annotations",
				theirs: []string{"docker buildx imagetools create --annotation index:a=1 --annotation 'manifest-descriptor[linux/amd64]:b=2' -t $LIST:v1 $REG/app:amd64 $REG/app:arm64"},
				ours:   []string{"manifestctl merge --annotation index:a=1 --annotation 'manifest-descriptor[linux/amd64]:b=2' -t $LIST:v1 $REG/app:amd64 $REG/app:arm64"},
				want:   []outcome{{ref: "$LIST:v1", holds: []string{`"annotations":{"a":"1"}`, `"annotations":{"b":"2"}`}}},
			},
			{
				doing:  "Annotations of the images themselves, without building them anew",
				theirs: []string{"docker buildx build --annotation manifest:org.opencontainers.image.licenses=MIT ..."},
				ours:   []string{"manifestctl mutate $REG/app:multi -t $LIST:v1 -a manifest:org.opencontainers.image.licenses=MIT"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64 linux/s390x", holds: []string{`"kept":"yes"`}, lacks: []string{"$AMD64"}}},
			},
			{
				doing:  "Descriptors from a file",
				theirs: []string{"docker buildx imagetools create -f $DIR/descriptor.json -t $REG/app:from-file"},
				ours:   []string{"manifestctl merge -f $DIR/descriptor.json -t $REG/app:from-file"},
				want:   []outcome{{ref: "$REG/app:from-file", holds: []string{"$ARM64", `"variant":"v8"`, `"from":"file"`}}},
			},
			{
				doing:  "Some platforms; a single image as it is; the digest in a file",
				theirs: []string{"docker buildx imagetools create --platform linux/arm64 -t $LIST:arm $REG/app:multi", "docker buildx imagetools create --prefer-index=false --metadata-file $DIR/meta.json -t $LIST:v1 $REG/app:amd64"},
				ours:   []string{"manifestctl merge --platform linux/arm64 -t $LIST:arm $REG/app:multi", "manifestctl merge --prefer-index=false --metadata-file $DIR/meta.json -t $LIST:v1 $REG/app:amd64"},
				want:   []outcome{{ref: "$LIST:arm", platforms: "linux/arm64"}, {ref: "$LIST:v1", platforms: "single linux/amd64"}},
			},
			{
				doing:  "From and to layouts",
				theirs: []string{"docker buildx imagetools create -t $LIST:v1 oci-layout://$DIR/layout:v1 $REG/app:amd64", "docker buildx imagetools create -t oci-layout://$DIR/copy:v1 $LIST:v1"},
				ours:   []string{"manifestctl merge -t $LIST:v1 oci-layout://$DIR/layout:v1 $REG/app:amd64", "manifestctl merge -t oci-layout://$DIR/copy:v1 $LIST:v1"},
				want:   []outcome{{ref: "oci:$DIR/copy:v1", platforms: "linux/riscv64 linux/amd64"}},
			},
			{
				doing:  "Inspect",
				theirs: []string{"docker buildx imagetools inspect $REG/app:multi", "docker buildx imagetools inspect --raw $REG/app:multi", "docker buildx imagetools inspect --format '{{json .Manifest}}' $REG/app:multi"},
				ours:   []string{"manifestctl inspect $REG/app:multi", "manifestctl inspect --raw $REG/app:multi", "manifestctl inspect --format '{{json .Manifest}}' $REG/app:multi"},
				stdout: "$ARM64",
			},
		},
	},
	{
		name:  "crane",
		intro: "Where crane's `mutate`, `append`, `rebase` and `flatten` make an image of an index, these change every image of it and keep it one.",
		migrations: []migration{
			{
				doing:  "Append to an index",
				theirs: []string{"crane index append $REG/app:multi -m $REG/app:armv7 -t $LIST:v1"},
				ours:   []string{"manifestctl merge -t $LIST:v1 $REG/app:multi $REG/app:armv7"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64 linux/s390x linux/arm/v7"}},
			},
			{
				doing:  "An index of images, of Docker's form, nested",
				theirs: []string{"crane index append -m $REG/app:amd64 -m $REG/app:arm64 -t $LIST:v1", "crane index append --docker-empty-base -m $REG/app:amd64 -t $LIST:docker", "crane index append --flatten=false -m $REG/app:multi -m $REG/app:armv7 -t $LIST:nested"},
				ours:   []string{"manifestctl merge -t $LIST:v1 $REG/app:amd64 $REG/app:arm64", "manifestctl merge --format docker -t $LIST:docker $REG/app:amd64", "manifestctl merge --nested -t $LIST:nested $REG/app:multi $REG/app:armv7"},
				want: []outcome{
					{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64"},
					{ref: "$LIST:docker", holds: []string{"manifest.list.v2+json"}},
					{ref: "$LIST:nested", platforms: "[index] linux/arm/v7"},
				},
			},
			{
				doing:  "Filter an index",
				theirs: []string{"crane index filter $REG/app:multi --platform linux/amd64 --platform linux/s390x -t $LIST:v1"},
				ours:   []string{"manifestctl copy $REG/app:multi --platform linux/amd64 --platform linux/s390x $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x", holds: []string{`"kept":"yes"`}}},
			},
			{
				doing:  "List an index",
				theirs: []string{"crane index list $REG/app:multi", "crane manifest $REG/app:multi"},
				ours:   []string{"manifestctl inspect $REG/app:multi", "manifestctl inspect --raw $REG/app:multi"},
				stdout: "$AMD64",
			},
			{
				doing:  "Change config and annotations",
				theirs: []string{"crane mutate $REG/app:multi --entrypoint /bin/app,--serve --env A=1 --label b=2 --user 1000 --workdir /srv -a c=3 -t $LIST:v1"},
				ours:   []string{"manifestctl mutate $REG/app:multi --entrypoint /bin/app,--serve --env A=1 --label b=2 --user 1000 --workdir /srv -a c=3 -t $LIST:v1", "manifestctl inspect --format json --platform linux/s390x $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64 linux/s390x", holds: []string{`"kept":"yes"`}}},
				stdout: `"--serve"`,
			},
			{
				doing:  "Append layers, flatten",
				theirs: []string{"crane append -b $REG/app:multi -f $DIR/layer.tar -t $LIST:v1", "crane flatten $LIST:v1 -t $LIST:flat"},
				ours:   []string{"manifestctl append $REG/app:multi $DIR/layer.tar -t $LIST:v1", "manifestctl flatten $LIST:v1 -t $LIST:flat"},
				want:   []outcome{{ref: "$LIST:flat", platforms: "linux/amd64 linux/arm64 linux/s390x"}},
			},
			{
				doing:  "Rebase",
				theirs: []string{"crane rebase $LIST:v1 --old_base $REG/app:multi --new_base $REG/app:multi -t $LIST:v2"},
				ours:   []string{"manifestctl append $REG/app:multi $DIR/layer.tar -t $LIST:v1", "manifestctl rebase $LIST:v1 --old-base $REG/app:multi --new-base $REG/app:multi -t $LIST:v2"},
				want:   []outcome{{ref: "$LIST:v2", platforms: "linux/amd64 linux/arm64 linux/s390x"}},
			},
			{
				doing:  "Digest, copy, tag, list tags, delete",
				theirs: []string{"crane digest --platform linux/arm64 $REG/app:multi", "crane copy $REG/app:multi $LIST:v1", "crane tag $LIST:v1 v2", "crane ls $LIST", "crane delete $LIST:v1"},
				ours:   []string{"manifestctl digest --platform linux/arm64 $REG/app:multi", "manifestctl copy $REG/app:multi $LIST:v1", "manifestctl tag $LIST:v1 v2", "manifestctl tags $LIST", "manifestctl delete $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", gone: true}, {ref: "$LIST:v2", platforms: "linux/amd64 linux/arm64 linux/s390x"}},
			},
		},
	},
	{
		name: "regctl",
		migrations: []migration{
			{
				doing:  "Create an index",
				theirs: []string{"regctl index create $LIST:v1 --ref $REG/app:multi --platform linux/amd64 --platform linux/arm64 --annotation a=1"},
				ours:   []string{"manifestctl merge -t $LIST:v1 $REG/app:multi --platform linux/amd64,linux/arm64 --annotation a=1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64", holds: []string{`"a":"1"`}}},
			},
			{
				doing:  "Of digests, without a tag, of Docker's media type, about another image",
				theirs: []string{"regctl index create $REG/app:digests --digest $AMD64 --digest $ARM64 --media-type application/vnd.docker.distribution.manifest.list.v2+json", "regctl index create --by-digest $LIST --ref $REG/app:amd64", "regctl index create $LIST:v1 --ref $REG/app:amd64 --subject multi --artifact-type application/example"},
				ours:   []string{"manifestctl merge -t $REG/app:digests $AMD64 $ARM64 --media-type application/vnd.docker.distribution.manifest.list.v2+json", "manifestctl merge --by-digest -t $LIST $REG/app:amd64", "manifestctl merge -t $LIST:v1 $REG/app:amd64 --subject $REG/app:multi --artifact-type application/example"},
				want: []outcome{
					{ref: "$REG/app:digests", platforms: "linux/amd64 linux/arm64", holds: []string{"manifest.list.v2+json"}},
					{ref: "$LIST:v1", holds: []string{`"subject":`, `"artifactType":"application/example"`}},
					{ref: "$LIST", gone: true},
				},
			},
			{
				doing:  "Add to an index",
				theirs: []string{"regctl index add $LIST:v1 --ref $REG/app:multi --platform linux/s390x"},
				ours:   []string{"manifestctl copy $REG/app:amd64 $LIST:v1", "manifestctl merge --append -t $LIST:v1 $REG/app:multi --platform linux/s390x"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x"}},
			},
			{
				doing:  "Delete from an index",
				theirs: []string{"regctl index delete $LIST:v1 --platform linux/s390x", "regctl index delete $LIST:v1 --digest $ARM64"},
				ours:   []string{"manifestctl copy $REG/app:multi $LIST:v1", "manifestctl mutate $LIST:v1 --replace --remove linux/s390x", "manifestctl mutate $LIST:v1 --replace --remove $ARM64"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64", holds: []string{`"kept":"yes"`}}},
			},
			{
				doing:  "Change images",
				theirs: []string{"regctl image mod $REG/app:multi --create $LIST:v1 --annotation '[*]a=1' --annotation '[linux/arm64]b=2' --label c=3 --env D=4 --config-entrypoint '[\"/app\"]' --expose-add 80/tcp --volume-add /data --layer-add tar=$DIR/layer.tar"},
				ours:   []string{"manifestctl mutate $REG/app:multi --create $LIST:v1 --annotation '[*]a=1' --annotation '[linux/arm64]b=2' --label c=3 --env D=4 --config-entrypoint '[\"/app\"]' --expose-add 80/tcp --volume-add /data --append $DIR/layer.tar"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/arm64 linux/s390x", holds: []string{`"a":"1"`, `"kept":"yes"`}}},
			},
			{
				doing:  "Convert to OCI's form",
				theirs: []string{"regctl image mod $LIST:docker --to-oci --create $LIST:oci"},
				ours:   []string{"manifestctl mutate $REG/app:multi --format docker --remove-annotation index:kept -t $LIST:docker", "manifestctl mutate $LIST:docker --format oci -t $LIST:oci"},
				want:   []outcome{{ref: "$LIST:docker", holds: []string{"manifest.list.v2+json", "manifest.v2+json"}, lacks: []string{"vnd.oci"}}, {ref: "$LIST:oci", platforms: "linux/amd64 linux/arm64 linux/s390x", lacks: []string{"docker"}}},
			},
			{
				doing:  "Differences",
				theirs: []string{"regctl manifest diff $REG/app:multi $REG/app:amd64"},
				ours:   []string{"manifestctl diff $REG/app:multi $REG/app:amd64"},
				stdout: "- linux/arm64",
				exit:   4,
			},
		},
	},
	{
		name: "manifest-tool",
		migrations: []migration{
			{
				doing:  "From arguments",
				theirs: []string{"manifest-tool push from-args --platforms linux/amd64,linux/s390x --template $REG/app-ARCH:v1 --target $LIST:v1"},
				ours:   []string{"manifestctl merge --platform linux/amd64,linux/s390x --template $REG/app-ARCH:v1 -t $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64 linux/s390x"}},
			},
			{
				doing:  "From a file",
				theirs: []string{"manifest-tool push from-spec $DIR/spec.yaml"},
				ours:   []string{"manifestctl merge --file $DIR/spec.yaml"},
				want:   []outcome{{ref: "$LIST:spec", platforms: "linux/amd64 linux/arm/v6"}, {ref: "$LIST:spec-too", platforms: "linux/amd64 linux/arm/v6"}},
			},
			{
				doing:  "Without what is missing",
				theirs: []string{"manifest-tool push from-args --ignore-missing --platforms linux/amd64,linux/riscv64 --template $REG/app-ARCH:v1 --target $LIST:v1"},
				ours:   []string{"manifestctl merge --ignore-missing --platform linux/amd64,linux/riscv64 --template $REG/app-ARCH:v1 -t $LIST:v1"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/amd64"}},
			},
		},
	},
	{
		name: "oras",
		migrations: []migration{
			{
				doing:  "Create an index, with several tags",
				theirs: []string{"oras manifest index create $REG/app:one,two amd64 arm64"},
				ours:   []string{"manifestctl merge -t $REG/app:one -t $REG/app:two $REG/app:amd64 $REG/app:arm64"},
				want:   []outcome{{ref: "$REG/app:two", platforms: "linux/amd64 linux/arm64"}},
			},
			{
				doing:  "Update an index",
				theirs: []string{"oras manifest index update $LIST:v1 --add s390x --merge multi", "oras manifest index update $LIST:v1 --remove $ARM64"},
				ours:   []string{"manifestctl merge -t $LIST:v1 $REG/app:armv7", "manifestctl merge --append -t $LIST:v1 $REG/app:multi", "manifestctl mutate $LIST:v1 --replace --remove $ARM64"},
				want:   []outcome{{ref: "$LIST:v1", platforms: "linux/arm/v7 linux/amd64 linux/s390x"}},
			},
		},
	},
}
