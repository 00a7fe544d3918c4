@echo off
rem web1, by profile p
cd /d %SystemRoot%\System32
echo pilotlight: starting WinPE
wpeinit
for %%d in (*.inf) do drvload %%d
wpeutil InitializeNetwork
wpeutil DisableFirewall
echo pilotlight: Windows Setup wants the medium's files, which WinPE cannot read by HTTP. Either
echo   vars.share names a share that has them, or the profile has settings and parts = curl.
cmd /k
exit /b 1
