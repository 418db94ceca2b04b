// Package main is every Kubernetes component of the development cluster in one
// binary: the first argument names the component, the rest are its own flags.
// One binary links the shared packages once (135 MB instead of 600).
package main

import (
	"context"
	"fmt"
	"os"
	"sort"

	"github.com/coredns/coredns/coremain"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func components() map[string]func() {
	return map[string]func(){
		"coredns": coremain.Run,
		"etcd":    func() { etcdmain.Main(os.Args) },
		"kube-apiserver": func() {
			run(apiserver.NewAPIServerCommand())
		},
		"kube-controller-manager": func() {
			run(controllermanager.NewControllerManagerCommand())
		},
		"kube-scheduler": func() { run(scheduler.NewSchedulerCommand()) },
		"kubelet": func() {
			run(kubelet.NewKubeletCommand(context.Background()))
		},
		"kube-proxy":         func() { run(proxy.NewProxyCommand()) },
		"volume-provisioner": runVolumes,
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

func usage(known map[string]func()) {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "usage: devcluster-kube COMPONENT [FLAG...]\ncomponents: %v\n", names)
	os.Exit(64)
}

func main() {
	known := components()
	if len(os.Args) < 2 || known[os.Args[1]] == nil {
		usage(known)
	}
	start := known[os.Args[1]]
	os.Args = os.Args[1:]
	start()
}
