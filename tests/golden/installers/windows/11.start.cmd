@echo off
rem web1, by profile p
cd /d %SystemRoot%\System32
echo pilotlight: starting WinPE
wpeinit
for %%d in (*.inf) do drvload %%d
wpeutil InitializeNetwork
wpeutil DisableFirewall

rem Who cannot report would be installed again and again: that is tried before anything is touched.
set tries=0
:network
call :say winpe && goto reported
set /a tries+=1
if %tries% geq 30 goto silent
ping -n 6 127.0.0.1 >nul
goto network
:silent
echo pilotlight: 192.0.2.1 cannot be reached by HTTP from here: no driver for the network card, or nothing in this WinPE that speaks HTTP. No disk was touched.
cmd /k
exit /b 1
:reported
if exist pre.cmd call pre.cmd

rem The disk, all of it: whatever was on it is gone.
set disk=
for /f %%d in ('cscript //nologo //E:vbscript pick.vbs') do set disk=%%d
if not defined disk (call :fail no-disk "there is no disk that this installation may write to: see above" & exit /b 1)
wpeutil UpdateBootInfo
set firmware=
for /f "tokens=3" %%t in ('reg query HKLM\System\CurrentControlSet\Control /v PEFirmwareType') do set firmware=%%t
if "%firmware%"=="0x2" goto gpt
if "%firmware%"=="0x1" goto mbr
call :fail firmware "WinPE does not tell whether this is BIOS or UEFI. No disk was touched." & exit /b 1
:gpt
set kind=UEFI
>X:\disk.txt (
    echo select disk %disk%
    echo clean
    echo convert gpt
    echo create partition efi size=300
    echo format quick fs=fat32 label=System
    echo assign letter=S
    echo create partition msr size=16
    echo create partition primary
    echo format quick fs=ntfs label=Windows
    echo assign letter=W
)
goto partition
:mbr
set kind=BIOS
>X:\disk.txt (
    echo select disk %disk%
    echo clean
    echo convert mbr
    echo create partition primary size=500
    echo format quick fs=ntfs label=System
    echo assign letter=S
    echo active
    echo create partition primary
    echo format quick fs=ntfs label=Windows
    echo assign letter=W
)
:partition
echo pilotlight: disk %disk% for %kind%
diskpart /s X:\disk.txt || (call :fail diskpart "diskpart failed: see above" & exit /b 1)

set parts=
rem The image lies where Windows will, until it is applied.
mkdir W:\pilotlight
set image=W:\pilotlight\install.wim
call :fetch http://192.0.2.1/files/m/sources/install.wim %image% || (call :fail fetch "the image could not be fetched" & exit /b 1)
echo pilotlight: applying Windows 11 Pro of %image%
dism /Apply-Image /ImageFile:%image% %parts% /Name:"Windows 11 Pro" /ApplyDir:W:\ || (call :fail dism "the image could not be applied: see above" & exit /b 1)
for %%d in (*.inf) do dism /Image:W:\ /Add-Driver /Driver:%%d
bcdboot W:\Windows /s S: /f %kind% || (call :fail bcdboot "the boot files could not be written: see above" & exit /b 1)

rem Windows looks here for its answers when it starts for the first time.
mkdir W:\Windows\Panther
copy /y autounattend.xml W:\Windows\Panther\unattend.xml || (call :fail answers "the answers could not be copied" & exit /b 1)
if not exist post.cmd goto posted
mkdir W:\Windows\Setup\Scripts
copy /y post.cmd W:\Windows\Setup\Scripts\SetupComplete.cmd
:posted
if exist W:\pilotlight rmdir /s /q W:\pilotlight

rem The last word: this machine boots its own disk from now on. A report that is lost means
rem another wipe: it is tried for 15 minutes and more.
set tries=0
:done
call :say done && goto told
set /a tries+=1
if %tries% geq 90 goto told
ping -n 11 127.0.0.1 >nul
goto done
:told
wpeutil reboot
exit /b 0

rem call :fail WORD "why": tells it, and leaves a prompt to somebody who looks.
:fail
echo pilotlight: %~2
call :say failed?%~1
cmd /k
exit /b 0

rem call :say WORD: a report, by curl where the user gave one.
:say
if exist curl.exe curl.exe -fsS -m 10 -o NUL http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/%~1 && exit /b 0
cscript //nologo //E:vbscript get.vbs http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/%~1
exit /b

rem call :fetch URL FILE
:fetch
echo pilotlight: fetching %~1
curl.exe -fS --retry 10 --retry-delay 5 --retry-connrefused -C - -o %~2 %~1
exit /b
